//! The repository's files, as the tidiness rules see them.

use std::path::Path;

/// A file of the repository.
pub struct File {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// What it says; empty if it is not text.
    pub text: String,
}

/// Files, whether read from disk or made up to see a rule fail.
#[derive(Default)]
pub struct Tree {
    /// Sorted by path.
    pub files: Vec<File>,
}

impl Tree {
    /// The repository that this crate was built in, without what `.gitignore` names.
    pub fn of_this_repository() -> Tree {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the repository");
        let ignored = std::fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
        let ignored: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('/')).collect();
        let mut tree = Tree::default();
        tree.add_folder(root, "", &ignored);
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    fn add_folder(&mut self, root: &Path, folder: &str, ignored: &[&str]) {
        for entry in std::fs::read_dir(root.join(folder)).expect("the repository can be listed") {
            let entry = entry.expect("the repository can be listed");
            let name = entry.file_name().into_string().expect("names here are text");
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if name == ".git" || name == "target" || ignored.contains(&path.as_str()) {
                continue;
            }
            if entry.file_type().expect("a file has a type").is_dir() {
                self.add_folder(root, &path, ignored);
            } else {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                self.files.push(File { path, text });
            }
        }
    }

    /// Files made up for a test of the tests.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let file = |&(path, text): &(&str, &str)| File { path: path.to_owned(), text: text.to_owned() };
        Tree { files: files.iter().map(file).collect() }
    }

    /// The text of a file; empty if there is none.
    pub fn text(&self, path: &str) -> &str {
        self.files.iter().find(|file| file.path == path).map_or("", |file| &file.text)
    }

    /// The files whose path begins and ends like this.
    pub fn within<'a>(&'a self, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.starts_with(start) && file.path.ends_with(end))
    }

    /// Whether there is a file or folder of that path.
    pub fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.iter().any(|file| {
            file.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}
