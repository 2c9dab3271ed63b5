//! Real directories, into a simulated disk and out of it: golden directories, and a look at a failed run's files.

use std::io;
use std::path::Path;

use super::world::World;

impl World {
    /// Copies the files below a real directory onto the disk, all of them durable. Empty directories are left out.
    pub fn load_dir(&self, from: &Path) -> io::Result<()> {
        let mut open = vec![(from.to_owned(), String::new())];
        while let Some((dir, prefix)) = open.pop() {
            let mut entries = std::fs::read_dir(&dir)?.collect::<Result<Vec<_>, _>>()?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let name = entry.file_name().into_string().map_err(|name| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{} is no text", name.display()))
                })?;
                let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                if entry.file_type()?.is_dir() {
                    open.push((entry.path(), path));
                } else {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a real directory is read, for a simulated disk"
                    )]
                    self.write_file(&path, &std::fs::read(entry.path())?);
                }
            }
        }
        Ok(())
    }

    /// Writes all files to a real directory, which is made if it is not there.
    pub fn save_dir(&self, to: &Path) -> io::Result<()> {
        for path in self.list_all() {
            let target = to.join(&path);
            if let (Some(dir), Some(bytes)) = (target.parent(), self.read_file(&path)) {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a simulated disk is written to a real directory"
                )]
                std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&target, bytes))?;
            }
        }
        Ok(())
    }
}
