//! What an inspection tells: a line for every structure if wanted, and a verdict on every file.

use std::fmt;

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Detail {
    /// A verdict on each file.
    Files,
    /// And a line for each group, journal record, batch, index entry.
    Entries,
    /// And a line for each record of the batches that are not compressed.
    Records,
}

/// Something told.
#[derive(Clone, Copy, Debug)]
pub enum Line<'a> {
    /// A structure within a file.
    Entry(&'a str),
    /// What is to be said of a file as a whole.
    File(&'a Verdict),
}

/// A place that is damaged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Spot {
    /// The byte, counted from the file's start.
    pub position: u64,
    /// What is wrong there.
    pub what: String,
}

/// What is to be said of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// The file, relative to where the inspection looks from.
    pub file: String,
    /// What it holds.
    pub holds: String,
    /// Its first bad byte.
    pub damage: Option<Spot>,
    /// Bad places behind the first.
    pub more: u64,
}

impl Verdict {
    /// A file that nothing has been found wrong with yet.
    pub(super) fn new(file: impl Into<String>) -> Verdict {
        Verdict { file: file.into(), ..Verdict::default() }
    }

    /// Notes a bad place; the one with the lowest position is shown.
    pub(super) fn bad(&mut self, position: u64, what: impl Into<String>) {
        let spot = Spot { position, what: what.into() };
        self.more += u64::from(self.damage.is_some());
        if self.damage.as_ref().is_none_or(|first| spot.position < first.position) {
            self.damage = Some(spot);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { file, holds, damage, more } = self;
        match damage {
            None => write!(f, "ok   {file}: {holds}"),
            Some(Spot { position, what }) => {
                write!(f, "BAD  {file}: at byte {position}: {what}")?;
                if *more > 0 {
                    write!(f, "; {more} more bad places")?;
                }
                if holds.is_empty() { Ok(()) } else { write!(f, "; {holds}") }
            }
        }
    }
}

/// What an inspection came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Files looked at.
    pub files: u64,
    /// Files among them that are damaged or missing.
    pub damaged: u64,
}

/// Where an inspection tells what it finds.
pub(super) struct Report<'a> {
    detail: Detail,
    out: &'a mut dyn FnMut(Line<'_>),
    pub summary: Summary,
}

impl<'a> Report<'a> {
    pub fn new(detail: Detail, out: &'a mut dyn FnMut(Line<'_>)) -> Report<'a> {
        Report { detail, out, summary: Summary::default() }
    }

    /// Whether records are wanted.
    pub fn wants_records(&self) -> bool {
        self.detail == Detail::Records
    }

    /// Tells of a structure, if that is wanted.
    pub fn entry(&mut self, line: impl FnOnce() -> String) {
        if self.detail >= Detail::Entries {
            (self.out)(Line::Entry(&line()));
        }
    }

    /// Tells what is to be said of a file.
    pub fn file(&mut self, verdict: &Verdict) {
        self.summary.files += 1;
        self.summary.damaged += u64::from(verdict.damage.is_some());
        (self.out)(Line::File(verdict));
    }
}
