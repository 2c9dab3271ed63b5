//! Bindings that look at a message's headers. They are found by what they ask for, so that a message is compared with those only
//! that have a field in common with it.

use std::collections::BTreeMap;

use super::bindings::Target;
use crate::amqp::codec::{Table, Value};
use crate::amqp::error::Failure;

/// How the fields of a binding are put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Match {
    /// One field is enough.
    any: bool,
    /// Fields that begin with `x-` count as well.
    with_x: bool,
}

/// Reads a binding's `x-match`.
fn kind(arguments: Table<'_>) -> Result<Match, Failure> {
    let (any, with_x) = match arguments.get(b"x-match") {
        None | Some(Value::String(b"all")) => (false, false),
        Some(Value::String(b"any")) => (true, false),
        Some(Value::String(b"all-with-x")) => (false, true),
        Some(Value::String(b"any-with-x")) => (true, true),
        Some(Value::String(other)) => {
            let other = String::from_utf8_lossy(other);
            return Err(Failure::precondition(format!(
                "Invalid x-match field value <<\"{other}\">>; expected all, any, all-with-x, or any-with-x"
            )));
        }
        Some(_) => return Err(Failure::precondition("Invalid x-match field type; expected longstr")),
    };
    Ok(Match { any, with_x })
}

/// Whether a binding's arguments make sense.
pub fn check(arguments: Table<'_>) -> Result<(), Failure> {
    kind(arguments).map(|_| ())
}

/// The fields of a binding that a message is to have.
fn fields(arguments: Table<'_>, kind: Match) -> impl Iterator<Item = (&[u8], Value<'_>)> {
    arguments.iter().filter(move |(name, _)| *name != b"x-match" && (kind.with_x || !name.starts_with(b"x-")))
}

/// A message's headers by name; of several with one name the first counts.
type Headers<'a> = BTreeMap<&'a [u8], Value<'a>>;

/// Whether headers fit a binding's arguments, which make sense.
fn fits(arguments: Table<'_>, headers: &Headers<'_>) -> bool {
    let Ok(kind) = kind(arguments) else { return false };
    let has = |(name, wanted): (&[u8], Value<'_>)| {
        headers.get(name).is_some_and(|value| wanted == Value::Void || value.means(wanted))
    };
    let mut fields = fields(arguments, kind);
    if kind.any { fields.any(has) } else { fields.all(has) }
}

/// What two values have in common that mean the same. Others may have it, too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Likeness {
    /// Any value is asked for.
    Anything,
    Integer(i64),
    Float(u64),
    Bytes(Vec<u8>),
    Other(&'static str),
}

impl Likeness {
    fn of(value: Value<'_>) -> Likeness {
        if let Some(integer) = value.integer() {
            return Likeness::Integer(integer);
        }
        match value {
            Value::Void => Likeness::Anything,
            Value::F32(float) => Likeness::Float(f64::from(float).to_bits()),
            Value::F64(float) => Likeness::Float(float.to_bits()),
            Value::String(bytes) | Value::Bytes(bytes) => Likeness::Bytes(bytes.to_vec()),
            other => Likeness::Other(other.type_name()),
        }
    }
}

/// The bindings of an exchange of type headers.
#[derive(Clone, Debug, Default)]
pub struct HeaderIndex {
    /// Arguments, and what they lead to. Places are used again.
    bindings: Vec<Option<(Vec<u8>, Target)>>,
    free: Vec<u32>,
    /// Which bindings ask for a field: those that want one of several for each, those that want all for one of them.
    by_field: BTreeMap<Vec<u8>, BTreeMap<Likeness, Vec<u32>>>,
    /// Those that ask for nothing.
    always: Vec<u32>,
}

impl HeaderIndex {
    /// The fields that a binding is found by; `None`: it asks for nothing, and fits.
    fn places(arguments: &[u8]) -> Option<Vec<(Vec<u8>, Likeness)>> {
        let arguments = Table::from_raw(arguments).unwrap_or_default();
        let Ok(kind) = kind(arguments) else { return Some(Vec::new()) };
        let place = |(name, value): (&[u8], Value<'_>)| (name.to_vec(), Likeness::of(value));
        let mut places: Vec<_> = fields(arguments, kind).map(place).collect();
        if kind.any {
            places.sort_unstable();
            places.dedup();
            return Some(places);
        }
        // One that is asked for by its value sorts out more than one that has to be there only.
        let telling = places.iter().position(|(_, likeness)| *likeness != Likeness::Anything).unwrap_or(0);
        (!places.is_empty()).then(|| vec![places.swap_remove(telling)])
    }

    /// Adds a binding.
    pub fn insert(&mut self, arguments: &[u8], target: Target) {
        let places = HeaderIndex::places(arguments);
        if places.as_ref().is_some_and(Vec::is_empty) {
            return; // Nothing will ever fit.
        }
        let binding = Some((arguments.to_vec(), target));
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.bindings.push(None);
                self.bindings.len() as u32 - 1
            }
        };
        if let Some(slot) = self.bindings.get_mut(number as usize) {
            *slot = binding;
        }
        match places {
            None => self.always.push(number),
            Some(places) => {
                for (name, likeness) in places {
                    self.by_field.entry(name).or_default().entry(likeness).or_default().push(number);
                }
            }
        }
    }

    /// Takes a binding out.
    pub fn remove(&mut self, arguments: &[u8], target: &Target) {
        let bindings = &self.bindings;
        let is = |number: &u32| {
            let binding = bindings.get(*number as usize).and_then(Option::as_ref);
            binding.is_some_and(|(other, to)| other == arguments && to == target)
        };
        let mut removed = None;
        let mut take = |numbers: &mut Vec<u32>| {
            if let Some(index) = numbers.iter().position(is) {
                removed = Some(numbers.swap_remove(index));
            }
        };
        match HeaderIndex::places(arguments) {
            None => take(&mut self.always),
            Some(places) => {
                for (name, likeness) in places {
                    let Some(values) = self.by_field.get_mut(&name) else { continue };
                    if let Some(numbers) = values.get_mut(&likeness) {
                        take(numbers);
                        if numbers.is_empty() {
                            values.remove(&likeness);
                        }
                    }
                    if values.is_empty() {
                        self.by_field.remove(&name);
                    }
                }
            }
        }
        if let Some(number) = removed {
            if let Some(slot) = self.bindings.get_mut(number as usize) {
                *slot = None;
            }
            self.free.push(number);
        }
    }

    /// Goes through what the bindings lead to that fit a message's headers. Gives how many bindings were looked at.
    pub fn matches<'b>(&'b self, headers: Table<'_>, mut found: impl FnMut(&'b Target)) -> usize {
        let mut candidates = self.always.clone();
        let mut by_name = Headers::new();
        if !self.by_field.is_empty() {
            for (name, value) in headers.iter() {
                by_name.entry(name).or_insert(value);
            }
        }
        for (name, value) in &by_name {
            let Some(values) = self.by_field.get(*name) else { continue };
            for likeness in [Likeness::of(*value), Likeness::Anything] {
                candidates.extend(values.get(&likeness).into_iter().flatten());
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        for number in &candidates {
            if let Some((arguments, target)) = self.bindings.get(*number as usize).and_then(Option::as_ref)
                && Table::from_raw(arguments).is_ok_and(|arguments| fits(arguments, &by_name))
            {
                found(target);
            }
        }
        by_name.len() + candidates.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::codec::TableWriter;

    fn arguments(kind: &str) -> TableWriter {
        TableWriter::default().with("x-match", Value::String(kind.as_bytes()))
    }

    fn target(number: usize) -> Target {
        let name = number.to_be_bytes().to_vec();
        Target { destination: crate::amqp::topology::entries::Destination::Queue(name), queue: None }
    }

    /// Which bindings fit.
    fn found(bindings: &[TableWriter], headers: Table<'_>) -> Vec<usize> {
        let mut index = HeaderIndex::default();
        for (number, arguments) in bindings.iter().enumerate() {
            index.insert(arguments.table().raw(), target(number));
        }
        let mut found = Vec::new();
        index.matches(headers, |to| found.extend((0..bindings.len()).find(|number| *to == target(*number))));
        found.sort_unstable();
        for (number, arguments) in bindings.iter().enumerate() {
            index.remove(arguments.table().raw(), &target(number));
        }
        assert!(index.by_field.is_empty() && index.always.is_empty(), "something is left: {index:?}");
        assert_eq!(index.free.len(), index.bindings.len());
        found
    }

    #[test]
    fn bindings_are_found_by_what_they_ask_for_and_nothing_else_is_looked_at() {
        let mut index = HeaderIndex::default();
        for number in 0..1_000 {
            let arguments = arguments("all").with("k", Value::I32(number)).with("l", Value::Void);
            index.insert(arguments.table().raw(), target(number as usize));
        }
        let headers = TableWriter::default().with("l", Value::Bool(true)).with("k", Value::I64(7));
        let mut found = Vec::new();
        let looked_at = index.matches(headers.table(), |to| found.push(to.clone()));
        assert_eq!((found, looked_at), (vec![target(7)], 3));
    }

    #[test]
    fn one_message_finds_bindings_of_every_sort_once() {
        let (one, text) = (Value::I32(1), Value::String(b"s"));
        let bindings = [
            arguments("any").with("a", one).with("b", text),
            arguments("all").with("a", Value::Void),
            arguments("all"),
            arguments("any"),
            arguments("all").with("b", Value::Bytes(b"s")).with("a", Value::U8(1)),
            arguments("any").with("c", Value::Void).with("b", Value::Void),
            arguments("all").with("b", one),
            arguments("all").with("f", Value::F32(0.5)),
            arguments("all").with("t", Value::Timestamp(9)),
            arguments("all").with("t", Value::Timestamp(8)),
        ];
        let headers = TableWriter::default()
            .with("a", Value::I64(1))
            .with("b", text)
            .with("b", one)
            .with("f", Value::F64(0.5))
            .with("t", Value::Timestamp(9));
        assert_eq!(found(&bindings, headers.table()), [0, 1, 2, 4, 5, 7, 8]);
        assert_eq!(found(&bindings, Table::EMPTY), [2]);
    }

    #[test]
    fn all_any_and_their_forms_with_x() {
        let headers = TableWriter::default().with("a", Value::I64(1)).with("x-b", Value::String(b"2"));
        let fits = |arguments: TableWriter| found(&[arguments], headers.table()) == [0];
        let (one, two, wrong) = (Value::I32(1), Value::String(b"2"), Value::I32(7));
        assert!(fits(TableWriter::default().with("a", one)), "all is what holds if nothing is said");
        assert!(fits(arguments("all").with("a", one).with("x-b", wrong)), "x- is not looked at");
        assert!(!fits(arguments("all-with-x").with("a", one).with("x-b", wrong)));
        assert!(!fits(arguments("all").with("a", one).with("c", Value::Void)));
        assert!(fits(arguments("all").with("a", Value::Void)), "it is there");
        assert!(fits(arguments("any").with("a", one).with("c", Value::Void)));
        assert!(!fits(arguments("any").with("a", wrong).with("x-b", two)));
        assert!(fits(arguments("any-with-x").with("a", wrong).with("x-b", two)));
        assert!(fits(arguments("all")), "nothing is missing");
        assert!(!fits(arguments("any")), "nothing fits");
    }

    #[test]
    fn another_way_to_match_is_refused() {
        assert!(check(arguments("any").table()).is_ok());
        assert!(check(arguments("some").table()).is_err());
        assert!(check(TableWriter::default().with("x-match", Value::Bool(true)).table()).is_err());
    }
}
