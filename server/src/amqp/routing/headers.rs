//! Bindings that look at a message's headers.

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

/// Whether headers fit a binding's arguments, which make sense.
pub fn fits(arguments: Table<'_>, headers: Table<'_>) -> bool {
    let Ok(kind) = kind(arguments) else { return false };
    let mut fields =
        arguments.iter().filter(|(name, _)| *name != b"x-match" && (kind.with_x || !name.starts_with(b"x-")));
    let has = |(name, wanted): (&[u8], Value<'_>)| {
        headers.get(name).is_some_and(|value| wanted == Value::Void || value.means(wanted))
    };
    if kind.any { fields.any(has) } else { fields.all(has) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::codec::TableWriter;

    fn arguments(kind: &str) -> TableWriter {
        TableWriter::default().with("x-match", Value::String(kind.as_bytes()))
    }

    #[test]
    fn all_any_and_their_forms_with_x() {
        let headers = TableWriter::default().with("a", Value::I64(1)).with("x-b", Value::String(b"2"));
        let fits = |arguments: TableWriter| fits(arguments.table(), headers.table());
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
