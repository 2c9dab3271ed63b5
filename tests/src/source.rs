//! Rust source, read as far as the tidiness rules need it.

/// The source without comments and without what stands in string and character literals; each of their bytes is a blank,
/// so that lines stay where they are.
pub fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + skipped(&bytes[at..], at > 0 && is_word(bytes[at - 1]));
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("characters are blanked whole")
}

/// The length of the comment or literal that `rest` begins with; 0 if it begins with neither. `in_word`: what stands
/// before is part of a name, so that an `r` here begins no raw string.
fn skipped(rest: &[u8], in_word: bool) -> usize {
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', first, ..] => {
            // One character between quotes is a literal; otherwise the quote begins a lifetime's name.
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        [b'r', ..] if !in_word => raw_string(rest, 1),
        [b'b' | b'c', b'r', ..] if !in_word => raw_string(rest, 2),
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = &rest[open + 1..];
    body.windows(close.len())
        .position(|window| window == close)
        .map_or(rest.len(), |at| open + 1 + at + close.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// The names and keywords of `code`, each with its line, from one.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(line, text)| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .map(move |word| (line + 1, word))
    })
}

/// The first names of the paths that `code` roots at `crate`: `a` and `b` for `use crate::{a::x, b}`. With their lines.
pub fn crate_paths(code: &str) -> Vec<(usize, &str)> {
    const ROOT: &str = "crate::";
    let mut found = Vec::new();
    for (at, _) in code.match_indices(ROOT) {
        if at > 0 && (is_word(code.as_bytes()[at - 1]) || code.as_bytes()[at - 1] == b'$') {
            continue;
        }
        let line = 1 + code[..at].matches('\n').count();
        let rest = &code[at + ROOT.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group).into_iter().map(|head| (line, head))),
            None => found.push((line, head(rest))),
        }
    }
    found
}

/// The first names within a group of imports, up to the brace that closes it.
fn group_heads(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(head(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn head(path: &str) -> &str {
    path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_nothing_else() {
        for (source, expected) in [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("a\"b", x)"#, "f(      , x)"),
            ("f(r#\"a\"b\"#, br\"c\", for_r\"\")", "f(        ,      , for_r  )"),
            ("('a', '\\'', '\u{e9}', &'a str)", "(   ,     ,     , &'a str)"),
            ("\"two\nlines\" x", "    \n       x"),
        ] {
            assert_eq!(code(source).trim_end(), expected.trim_end(), "{source}");
        }
    }

    #[test]
    fn paths_are_found_in_imports_groups_and_expressions() {
        let source = "use crate::log::plan::Range;\nuse crate::{io::{self, Io}, types};\n\
                      pub(crate) fn f() -> crate::error::Refusal { my_crate::x() }";
        let found = crate_paths(source);
        assert_eq!(found, [(1, "log"), (2, "io"), (2, "types"), (3, "error")]);
    }

    #[test]
    fn words_come_with_their_lines() {
        let found: Vec<_> = words("let a_b = c;\n#[d(e)]").collect();
        assert_eq!(found, [(1, "let"), (1, "a_b"), (1, "c"), (2, "d"), (2, "e")]);
    }
}
