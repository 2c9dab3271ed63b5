//! A document that can be written as Markdown and as one HTML page.

mod html;
mod markdown;
pub mod plot;

pub use html::html;
pub use markdown::markdown;

/// A piece of a document.
pub enum Piece {
    /// A heading of a level; 1 is the document's.
    Heading(u8, String),
    /// A paragraph.
    Text(String),
    /// A table: its head, and its rows. The first column is text, the others are figures.
    Table(Vec<String>, Vec<Vec<String>>),
    /// What was typed, and is to be typed again.
    Command(String),
    /// A plot: the name of its file, what it shows, and the SVG.
    Figure(String, String, String),
}

/// A row of cells.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
