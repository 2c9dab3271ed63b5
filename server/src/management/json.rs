//! Field tables as JSON, and the other way round; and what is read of a request's body.

use serde_json::{Map, Number, Value, json};

use super::problem::Problem;
use crate::amqp::codec::{self, Table, TableWriter};
use crate::limits::AMQP_TABLE_DEPTH_MAX;

/// Bytes from the wire as text: what is not UTF-8 is shown as well as it can be.
pub fn text(bytes: &[u8]) -> Value {
    Value::String(String::from_utf8_lossy(bytes).into_owned())
}

/// A field table.
pub fn table(table: Table<'_>) -> Value {
    Value::Object(
        table
            .iter()
            .map(|(name, field)| (String::from_utf8_lossy(name).into_owned(), value(field)))
            .collect(),
    )
}

/// The field table whose content this is.
pub fn raw_table(raw: &[u8]) -> Value {
    table(Table::from_raw(raw).unwrap_or_default())
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn value(field: codec::Value<'_>) -> Value {
    use codec::Value as Field;
    match field {
        Field::Bool(flag) => Value::Bool(flag),
        Field::F32(number) => float(f64::from(number)),
        Field::F64(number) => float(number),
        Field::Decimal(scale, number) => float(f64::from(number) / 10_f64.powi(i32::from(scale))),
        Field::String(bytes) | Field::Bytes(bytes) => text(bytes),
        Field::Array(array) => Value::Array(array.iter().map(value).collect()),
        Field::Table(inner) => table(inner),
        Field::Timestamp(seconds) => json!(seconds),
        Field::Void => Value::Null,
        number => json!(number.integer()),
    }
}

/// The content of the field table that an object stands for. Numbers become as wide as RabbitMQ makes them.
pub fn to_table(object: &Map<String, Value>) -> Result<Vec<u8>, Problem> {
    fields(object, AMQP_TABLE_DEPTH_MAX).map(TableWriter::into_raw)
}

fn fields(object: &Map<String, Value>, depth: usize) -> Result<TableWriter, Problem> {
    let depth = depth.checked_sub(1).ok_or_else(|| Problem::bad("arguments are nested too deeply"))?;
    let mut table = TableWriter::default();
    for (name, value) in object {
        if name.len() > usize::from(u8::MAX) {
            return Err(Problem::bad("an argument's name has 255 bytes at most"));
        }
        with_field(value, depth, &mut |field| table.put(name.as_bytes(), field))?;
    }
    Ok(table)
}

/// Makes a field of a value, and hands it over.
fn with_field(value: &Value, depth: usize, take: &mut dyn FnMut(codec::Value<'_>)) -> Result<(), Problem> {
    use codec::Value as Field;
    match value {
        Value::Null => take(Field::Void),
        Value::Bool(flag) => take(Field::Bool(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => take(Field::I64(integer)),
            (None, Some(float)) => take(Field::F64(float)),
            (None, None) => return Err(Problem::bad("a number is too large")),
        },
        Value::String(text) => take(Field::String(text.as_bytes())),
        Value::Object(object) => take(Field::Table(fields(object, depth)?.table())),
        Value::Array(values) => {
            let depth =
                depth.checked_sub(1).ok_or_else(|| Problem::bad("arguments are nested too deeply"))?;
            // Values within an array are written as fields of a table are, but for their names.
            let mut inner = Vec::new();
            for value in values {
                with_field(value, depth, &mut |field| inner.push(TableWriter::array([field])))?;
            }
            take(codec::ArrayContent::joined(&inner).value());
        }
    }
    Ok(())
}

/// An object that was sent, field by field.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// A field, if it is there and not null.
    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A text.
    pub fn text(self, key: &str) -> Result<Option<&'a str>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Problem::bad(json!(["not_string", key, other]))),
        }
    }

    /// A text that has to be there.
    pub fn needed_text(self, key: &str) -> Result<&'a str, Problem> {
        self.text(key)?.ok_or_else(|| Problem::missing(key))
    }

    /// A name as AMQP has them.
    pub fn name(self, key: &str) -> Result<&'a [u8], Problem> {
        short(self.needed_text(key)?.as_bytes())
    }

    /// Yes or no, which may be said by a text.
    pub fn flag(self, key: &str, default: bool) -> Result<bool, Problem> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(other) => Err(Problem::bad(json!(["not_boolean", other]))),
        }
    }

    /// A whole number, which may be said by a text.
    pub fn integer(self, key: &str) -> Result<Option<i64>, Problem> {
        let found = match self.get(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        found.map(Some).ok_or_else(|| Problem::bad(json!(["not_int", key])))
    }

    /// A table; none is an empty one, and so is an empty array, which is what RabbitMQ has made of some.
    pub fn table(self, key: &str) -> Result<Vec<u8>, Problem> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(object)) => to_table(object),
            Some(Value::Array(values)) if values.is_empty() => Ok(Vec::new()),
            Some(_) => Err(Problem::bad(json!(["not_object", key]))),
        }
    }
}

/// A name that fits into a short string.
pub fn short(name: &[u8]) -> Result<&[u8], Problem> {
    if name.len() > usize::from(u8::MAX) {
        return Err(Problem::bad("a name has 255 bytes at most"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_went() {
        let object = json!({
            "n": 5, "f": 1.5, "s": "x", "b": true, "v": null, "a": [1, "y", [2], {"k": []}], "t": {"u": {}},
        });
        let raw = to_table(object.as_object().unwrap()).unwrap();
        assert_eq!(raw_table(&raw), object);
        assert_eq!(Table::from_raw(&raw).unwrap().get(b"n"), Some(codec::Value::I64(5)));
    }

    #[test]
    fn what_is_nested_too_deeply_or_named_too_long_is_refused() {
        let nested = (0..AMQP_TABLE_DEPTH_MAX).fold(json!({}), |inner, _| json!({"t": inner}));
        assert!(to_table(nested.as_object().unwrap()).is_err());
        let arrays = (0..AMQP_TABLE_DEPTH_MAX).fold(json!([]), |inner, _| json!([inner]));
        assert!(to_table(json!({"a": arrays}).as_object().unwrap()).is_err());
        let long = Map::from_iter([("x".repeat(256), Value::Null)]);
        assert!(to_table(&long).is_err());
    }

    #[test]
    fn flags_and_numbers_may_be_texts_and_nothing_else() {
        let object = json!({"t": "true", "n": "5", "x": "maybe", "a": []});
        let fields = Fields(object.as_object().unwrap());
        assert_eq!(fields.flag("t", false), Ok(true));
        assert_eq!(fields.flag("none", true), Ok(true));
        assert_eq!(fields.integer("n"), Ok(Some(5)));
        assert_eq!(fields.table("a"), Ok(Vec::new()));
        assert!(
            fields.flag("x", true).is_err() && fields.integer("x").is_err() && fields.table("x").is_err()
        );
        assert_eq!(fields.needed_text("none").unwrap_err().reason, json!("[{key_missing,none}]"));
    }
}
