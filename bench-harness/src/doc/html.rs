//! One HTML page that needs nothing else: its style and its plots are in it.

use std::fmt::Write;

use super::Piece;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}\
th,td{border-bottom:1px solid #ddd;padding:.3em .7em;text-align:right;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}th{background:#f5f5f5}\
pre{background:#f5f5f5;padding:.7em;overflow-x:auto}svg{max-width:100%;height:auto}\
figcaption{color:#555}figure{margin:1.5em 0}";

/// The page.
pub fn html(title: &str, pieces: &[Piece]) -> String {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>{STYLE}</style>\n",
        escaped(title)
    );
    for piece in pieces {
        put(&mut text, piece);
    }
    text + "</html>\n"
}

/// Adds a piece. Writing to a string does not fail.
fn put(text: &mut String, piece: &Piece) {
    let _ = match piece {
        Piece::Heading(level, heading) => writeln!(text, "<h{level}>{}</h{level}>", escaped(heading)),
        Piece::Text(paragraph) => writeln!(text, "<p>{}</p>", escaped(paragraph)),
        Piece::Command(command) => writeln!(text, "<pre>{}</pre>", escaped(command)),
        Piece::Figure(_, caption, svg) => {
            writeln!(
                text,
                "<figure>\n{}\n<figcaption>{}</figcaption></figure>",
                inline(svg),
                escaped(caption)
            )
        }
        Piece::Table(head, rows) => {
            let rows: Vec<String> = rows.iter().map(|row| line("td", row)).collect();
            writeln!(text, "<table>\n{}{}</table>", line("th", head), rows.concat())
        }
    };
}

fn line(tag: &str, cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
    format!("<tr>{}</tr>\n", cells.concat())
}

/// An SVG without what only a file of its own begins with.
fn inline(svg: &str) -> &str {
    svg.find("<svg").map_or(svg, |start| &svg[start..])
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::row;

    #[test]
    fn what_servers_say_cannot_become_markup() {
        let pieces = [
            Piece::Text("it said <b>no</b> & ended".to_owned()),
            Piece::Table(row(["<th>"]), vec![row(["<td>"])]),
            Piece::Figure("f.svg".to_owned(), "<i>".to_owned(), "<?xml?><svg><rect/></svg>".to_owned()),
        ];
        let page = html("a < b", &pieces);
        assert!(
            page.contains("<title>a &lt; b</title>") && page.contains("&lt;b&gt;no&lt;/b&gt; &amp; ended")
        );
        assert!(page.contains("<th>&lt;th&gt;</th>") && page.contains("<td>&lt;td&gt;</td>"));
        assert!(page.contains("\n<svg><rect/></svg>\n") && !page.contains("<?xml"));
    }

    #[test]
    fn a_page_loads_nothing() {
        let page = html("t", &[Piece::Heading(1, "t".to_owned())]);
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("url("));
    }
}
