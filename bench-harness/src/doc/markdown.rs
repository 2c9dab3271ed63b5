//! Markdown. Plots are files beside it.

use super::Piece;

/// The document's text.
pub fn markdown(pieces: &[Piece]) -> String {
    let mut text = pieces.iter().map(piece).collect::<Vec<_>>().concat();
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn piece(piece: &Piece) -> String {
    match piece {
        Piece::Heading(level, heading) => format!("{} {heading}\n\n", "#".repeat(usize::from(*level))),
        Piece::Text(paragraph) => format!("{paragraph}\n\n"),
        Piece::Command(command) => format!("```sh\n{command}\n```\n\n"),
        Piece::Figure(name, caption, _) => format!("![{caption}]({name})\n\n"),
        Piece::Table(head, rows) => {
            let line = |cells: &[String]| {
                let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
                format!("| {} |\n", cells.join(" | "))
            };
            let rules: Vec<&str> =
                (0..head.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
            let rows: Vec<String> = rows.iter().map(|row| line(row)).collect();
            format!("{}| {} |\n{}\n", line(head), rules.join(" | "), rows.concat())
        }
    }
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
