//! Field tables: kept as they came, since the order of fields, doubled names and the width of numbers are the sender's.

use super::reader::{Malformed, Reader};
use super::writer::Writer;

/// A field table's content, checked when it was read: what is in it can be gone through without errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Table<'a> {
    raw: &'a [u8],
}

/// The values of an array, checked like a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Array<'a> {
    raw: &'a [u8],
}

/// A field's value, in RabbitMQ's dialect.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`, and `L`
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: a power of ten, and what is to be divided by it.
    Decimal(u8, u32),
    /// `S`
    String(&'a [u8]),
    /// `x`
    Bytes(&'a [u8]),
    /// `A`
    Array(Array<'a>),
    /// `F`
    Table(Table<'a>),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `V`
    Void,
}

impl<'a> Value<'a> {
    /// Reads a value with its tag; tables within it may be `depth` deep.
    fn read(reader: &mut Reader<'a>, depth: usize) -> Result<Value<'a>, Malformed> {
        Ok(match reader.u8()? {
            b't' => Value::Bool(reader.u8()? != 0),
            b'b' => Value::I8(reader.u8()? as i8),
            b'B' => Value::U8(reader.u8()?),
            b's' => Value::I16(reader.u16()? as i16),
            b'u' => Value::U16(reader.u16()?),
            b'I' => Value::I32(reader.u32()? as i32),
            b'i' => Value::U32(reader.u32()?),
            b'l' | b'L' => Value::I64(reader.u64()? as i64),
            b'f' => Value::F32(f32::from_bits(reader.u32()?)),
            b'd' => Value::F64(f64::from_bits(reader.u64()?)),
            b'D' => Value::Decimal(reader.u8()?, reader.u32()?),
            b'S' => Value::String(reader.long_string()?),
            b'x' => Value::Bytes(reader.long_string()?),
            b'A' => Value::Array(Array::checked(reader.long_string()?, depth)?),
            b'F' => Value::Table(Table::checked(reader.long_string()?, depth)?),
            b'T' => Value::Timestamp(reader.u64()?),
            b'V' => Value::Void,
            _ => return Err(Malformed),
        })
    }

    fn write(self, writer: &mut Writer<'_>) {
        match self {
            Value::Bool(value) => tagged(writer, b't', &[u8::from(value)]),
            Value::I8(value) => tagged(writer, b'b', &value.to_be_bytes()),
            Value::U8(value) => tagged(writer, b'B', &value.to_be_bytes()),
            Value::I16(value) => tagged(writer, b's', &value.to_be_bytes()),
            Value::U16(value) => tagged(writer, b'u', &value.to_be_bytes()),
            Value::I32(value) => tagged(writer, b'I', &value.to_be_bytes()),
            Value::U32(value) => tagged(writer, b'i', &value.to_be_bytes()),
            Value::I64(value) => tagged(writer, b'l', &value.to_be_bytes()),
            Value::F32(value) => tagged(writer, b'f', &value.to_be_bytes()),
            Value::F64(value) => tagged(writer, b'd', &value.to_be_bytes()),
            Value::Decimal(scale, value) => {
                tagged(writer, b'D', &[scale]);
                writer.u32(value);
            }
            Value::String(value) => tagged_long(writer, b'S', value),
            Value::Bytes(value) => tagged_long(writer, b'x', value),
            Value::Array(value) => tagged_long(writer, b'A', value.raw),
            Value::Table(value) => tagged_long(writer, b'F', value.raw),
            Value::Timestamp(value) => tagged(writer, b'T', &value.to_be_bytes()),
            Value::Void => tagged(writer, b'V', &[]),
        }
    }

    /// The name that RabbitMQ gives a value's type.
    pub fn type_name(self) -> &'static str {
        match self {
            Value::Bool(_) => "bool",
            Value::I8(_) => "byte",
            Value::U8(_) => "unsignedbyte",
            Value::I16(_) => "short",
            Value::U16(_) => "unsignedshort",
            Value::I32(_) => "signedint",
            Value::U32(_) => "unsignedint",
            Value::I64(_) => "long",
            Value::F32(_) => "float",
            Value::F64(_) => "double",
            Value::Decimal(..) => "decimal",
            Value::String(_) => "longstr",
            Value::Bytes(_) => "binary",
            Value::Array(_) => "array",
            Value::Table(_) => "table",
            Value::Timestamp(_) => "timestamp",
            Value::Void => "void",
        }
    }

    /// The number, if it is one without a fraction.
    pub fn integer(self) -> Option<i64> {
        match self {
            Value::I8(value) => Some(value.into()),
            Value::U8(value) => Some(value.into()),
            Value::I16(value) => Some(value.into()),
            Value::U16(value) => Some(value.into()),
            Value::I32(value) => Some(value.into()),
            Value::U32(value) => Some(value.into()),
            Value::I64(value) => Some(value),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn string(self) -> Option<&'a [u8]> {
        match self {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// Whether two values mean the same: numbers compare whatever their widths, as RabbitMQ compares them.
    pub fn means(self, other: Value<'_>) -> bool {
        if let (Some(one), Some(other)) = (self.integer(), other.integer()) {
            return one == other;
        }
        match (self, other) {
            (Value::F32(one), Value::F64(other)) => f64::from(one).to_bits() == other.to_bits(),
            (Value::F64(one), Value::F32(other)) => one.to_bits() == f64::from(other).to_bits(),
            (Value::F32(one), Value::F32(other)) => one.to_bits() == other.to_bits(),
            (Value::F64(one), Value::F64(other)) => one.to_bits() == other.to_bits(),
            (Value::String(one) | Value::Bytes(one), Value::String(other) | Value::Bytes(other)) => {
                one == other
            }
            (Value::Array(one), Value::Array(other)) => {
                one.iter().count() == other.iter().count()
                    && one.iter().zip(other.iter()).all(|(one, other)| one.means(other))
            }
            (Value::Table(one), Value::Table(other)) => {
                one.iter().count() == other.iter().count()
                    && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| value.means(other)))
            }
            (one, other) => one == other,
        }
    }
}

fn tagged(writer: &mut Writer<'_>, tag: u8, value: &[u8]) {
    writer.u8(tag);
    writer.bytes(value);
}

fn tagged_long(writer: &mut Writer<'_>, tag: u8, value: &[u8]) {
    writer.u8(tag);
    writer.long_string(value);
}

impl<'a> Table<'a> {
    /// A table without fields.
    pub const EMPTY: Table<'static> = Table { raw: &[] };

    /// Checks a table's content, which may be `depth` tables and arrays deep.
    pub(super) fn checked(raw: &'a [u8], depth: usize) -> Result<Table<'a>, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        let mut reader = Reader::new(raw);
        while !reader.is_empty() {
            reader.short_string()?;
            Value::read(&mut reader, depth)?;
        }
        Ok(Table { raw })
    }

    /// Takes a table's content that was written by us, or that was checked before it was stored.
    pub fn from_raw(raw: &'a [u8]) -> Result<Table<'a>, Malformed> {
        Table::checked(raw, crate::limits::AMQP_TABLE_DEPTH_MAX)
    }

    /// Its content, as it came.
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Whether it has no fields.
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// Its fields, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        let mut reader = Reader::new(self.raw);
        std::iter::from_fn(move || {
            let name = reader.short_string().ok()?;
            Some((name, Value::read(&mut reader, usize::MAX).ok()?))
        })
    }

    /// The first field of that name.
    pub fn get(self, name: &[u8]) -> Option<Value<'a>> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }
}

impl<'a> Array<'a> {
    fn checked(raw: &'a [u8], depth: usize) -> Result<Array<'a>, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        let mut reader = Reader::new(raw);
        while !reader.is_empty() {
            Value::read(&mut reader, depth)?;
        }
        Ok(Array { raw })
    }

    /// Its values, in order.
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let mut reader = Reader::new(self.raw);
        std::iter::from_fn(move || Value::read(&mut reader, usize::MAX).ok())
    }
}

/// Writes a table's content, field by field.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableWriter {
    raw: Vec<u8>,
}

impl TableWriter {
    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value<'_>) -> TableWriter {
        self.put(name.as_bytes(), value);
        self
    }

    /// Adds a field.
    pub fn put(&mut self, name: &[u8], value: Value<'_>) {
        let mut writer = Writer::new(&mut self.raw);
        writer.short_string(name);
        value.write(&mut writer);
    }

    /// What has been written.
    pub fn table(&self) -> Table<'_> {
        Table { raw: &self.raw }
    }

    /// What has been written.
    pub fn into_raw(self) -> Vec<u8> {
        self.raw
    }

    /// An array's content.
    pub fn array<'v>(values: impl IntoIterator<Item = Value<'v>>) -> ArrayContent {
        let mut raw = Vec::new();
        let mut writer = Writer::new(&mut raw);
        for value in values {
            value.write(&mut writer);
        }
        ArrayContent { raw }
    }
}

/// An array that was written by us.
#[derive(Clone, Debug, Default)]
pub struct ArrayContent {
    raw: Vec<u8>,
}

impl ArrayContent {
    /// An array of the values of several.
    pub fn joined(arrays: &[ArrayContent]) -> ArrayContent {
        ArrayContent { raw: arrays.iter().flat_map(|array| &array.raw).copied().collect() }
    }

    /// As a value.
    pub fn value(&self) -> Value<'_> {
        Value::Array(Array { raw: &self.raw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::AMQP_TABLE_DEPTH_MAX;

    fn nested(depth: usize) -> Vec<u8> {
        (1..depth).fold(Vec::new(), |inner, _| {
            let mut outer = TableWriter::default();
            outer.put(b"t", Value::Table(Table { raw: &inner }));
            outer.into_raw()
        })
    }

    #[test]
    fn order_and_doubled_names_stay() {
        let table = TableWriter::default()
            .with("b", Value::I32(1))
            .with("a", Value::Void)
            .with("b", Value::String(b"\xFF"));
        let fields: Vec<_> = table.table().iter().collect();
        assert_eq!(fields, [(&b"b"[..], Value::I32(1)), (b"a", Value::Void), (b"b", Value::String(b"\xFF"))]);
        assert_eq!(table.table().get(b"b"), Some(Value::I32(1)));
    }

    #[test]
    fn tables_within_tables_end_somewhere() {
        assert!(Table::from_raw(&nested(AMQP_TABLE_DEPTH_MAX)).is_ok());
        assert_eq!(Table::from_raw(&nested(AMQP_TABLE_DEPTH_MAX + 1)), Err(Malformed));
    }

    #[test]
    fn an_unknown_tag_is_malformed() {
        assert_eq!(Table::from_raw(b"\x01aZ"), Err(Malformed));
    }

    #[test]
    fn numbers_of_different_widths_mean_the_same() {
        assert!(Value::I32(5).means(Value::I64(5)));
        assert!(Value::U8(5).means(Value::I16(5)));
        assert!(!Value::I32(5).means(Value::I64(6)));
        assert!(!Value::I32(5).means(Value::String(b"5")));
        assert!(!Value::I32(1).means(Value::Bool(true)));
    }
}
