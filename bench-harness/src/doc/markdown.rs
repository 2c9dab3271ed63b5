//! Markdown. Plots are files beside it.

use super::Piece;

/// The document's text.
pub fn markdown(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Heading(level, heading) => {
                text += &format!("{} {heading}\n\n", "#".repeat(usize::from(*level)));
            }
            Piece::Text(paragraph) => text += &format!("{paragraph}\n\n"),
            Piece::Command(command) => text += &format!("```sh\n{command}\n```\n\n"),
            Piece::Figure(name, caption, _) => text += &format!("![{caption}]({name})\n\n"),
            Piece::Table(head, rows) => {
                let line = |cells: &[String]| {
                    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
                    format!("| {} |\n", cells.join(" | "))
                };
                text += &line(head);
                let rules: Vec<&str> = (0..head.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
                text += &format!("| {} |\n", rules.join(" | "));
                rows.iter().for_each(|row| text += &line(row));
                text.push('\n');
            }
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::row;

    #[test]
    fn a_table_has_a_rule_under_its_head_and_no_cell_breaks_it() {
        let table = Piece::Table(row(["peer", "sent/s"]), vec![row(["a|b", "5"])]);
        let text = markdown(&[Piece::Heading(2, "Rows".to_owned()), table]);
        assert_eq!(text, "## Rows\n\n| peer | sent/s |\n| --- | ---: |\n| a\\|b | 5 |\n");
    }
}
