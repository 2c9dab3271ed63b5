//! The bindings of exchanges, arranged so that few are looked at, beside all of them looked at one by one. The bytes are what is
//! bound, unbound and published.

use millstream::amqp::codec::{Properties, Table, TableWriter, Value};
use millstream::amqp::routing::bindings::{Addressed, Bindings, ExchangeKind, Target};
use millstream::amqp::topology::entries::{Binding, Destination};

/// More operations than these show nothing new.
const OPERATIONS_MAX: usize = 400;
const WORDS: [&str; 6] = ["a", "b", "", "*", "#", "ab"];
const NAMES: [&str; 5] = ["k", "l", "x-k", "x-match", "m"];

/// A queue is found if one of its bindings fits, and once for each that does where that is told; what was unbound is forgotten.
pub fn run(bytes: &[u8]) {
    let mut source = bytes.iter().copied();
    let mut topic = (Bindings::new(ExchangeKind::Topic, Table::EMPTY), Vec::<Binding>::new());
    let mut headers = (Bindings::new(ExchangeKind::Headers, Table::EMPTY), Vec::<Binding>::new());
    for _ in 0..OPERATIONS_MAX {
        let Some(operation) = source.next() else { break };
        let is_topic = operation & 1 == 0;
        let (bindings, model) = if is_topic { &mut topic } else { &mut headers };
        match operation >> 1 & 3 {
            0 | 1 => {
                let binding = read_binding(is_topic, &mut source);
                // The same binding is made once.
                if !model.contains(&binding) {
                    bindings.insert(&binding, target(&binding));
                    model.push(binding);
                }
            }
            2 if !model.is_empty() => {
                let place = usize::from(source.next().unwrap_or(0)) % model.len();
                let binding = model.swap_remove(place);
                bindings.remove(&binding, &target(&binding));
            }
            _ => {
                let key = read_words(&mut source).join(".");
                let table = read_table(&mut source);
                check(is_topic, bindings, model, key.as_bytes(), table.table());
            }
        }
        assert_eq!(bindings.len(), model.len());
    }
}

fn target(binding: &Binding) -> Target {
    Target { destination: binding.destination.clone(), queue: None }
}

fn read_words(source: &mut impl Iterator<Item = u8>) -> Vec<&'static str> {
    let count = source.next().unwrap_or(0) % 7;
    (0..count).map(|_| WORDS[usize::from(source.next().unwrap_or(0)) % WORDS.len()]).collect()
}

fn read_table(source: &mut impl Iterator<Item = u8>) -> TableWriter {
    let count = source.next().unwrap_or(0) % 5;
    let mut table = TableWriter::default();
    for _ in 0..count {
        let (name, kind) = (source.next().unwrap_or(0), source.next().unwrap_or(0));
        let name = NAMES[usize::from(name) % NAMES.len()].as_bytes();
        let number = kind >> 4;
        let inner = TableWriter::default().with("n", Value::U8(number & 1));
        let value = match kind & 15 {
            0 | 1 => Value::Void,
            2 => Value::I32(number.into()),
            3 => Value::I64(number.into()),
            4 => Value::U8(number),
            5 => Value::String(&[b'0' + number]),
            6 => Value::Bytes(&[b'0' + number]),
            7 => Value::Bool(number & 1 == 0),
            8 => Value::F32(f32::from(number) / 2.0),
            9 => Value::F64(f64::from(number) / 2.0),
            10 => Value::Timestamp(number.into()),
            11 => Value::Table(inner.table()),
            12 => Value::String(b"all"),
            13 => Value::String(b"any"),
            14 => Value::String(b"all-with-x"),
            _ => Value::String(b"any-with-x"),
        };
        table.put(name, value);
    }
    table
}

fn read_binding(is_topic: bool, source: &mut impl Iterator<Item = u8>) -> Binding {
    let to = source.next().unwrap_or(0) % 4;
    Binding {
        source: b"x".to_vec(),
        destination: Destination::Queue(vec![to]),
        routing_key: if is_topic { read_words(source).join(".").into_bytes() } else { Vec::new() },
        arguments: if is_topic { Vec::new() } else { read_table(source).into_raw() },
    }
}

fn check(is_topic: bool, bindings: &Bindings, model: &[Binding], key: &[u8], headers: Table<'_>) {
    let properties = Properties { headers: Some(headers), ..Properties::default() };
    let mut found: Vec<Vec<u8>> = Vec::new();
    let looked_at = bindings.matches(Addressed { key, properties: &properties, random: 0 }, |target| {
        found.push(target.destination.name().to_vec());
    });
    let fits = |binding: &&Binding| {
        if is_topic {
            let split = |key: &[u8]| -> Vec<Vec<u8>> {
                if key.is_empty() {
                    Vec::new()
                } else {
                    key.split(|byte| *byte == b'.').map(<[u8]>::to_vec).collect()
                }
            };
            fits_pattern(&split(&binding.routing_key), &split(key))
        } else {
            fits_arguments(Table::from_raw(&binding.arguments).expect("it was written by us"), headers)
        }
    };
    let mut expected: Vec<Vec<u8>> =
        model.iter().filter(fits).map(|binding| binding.destination.name().to_vec()).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "other bindings fit than were found");
    if !is_topic {
        assert!(looked_at <= headers.iter().count() + model.len(), "something was looked at twice");
    }
}

/// What a pattern means, said as simply as possible.
fn fits_pattern(pattern: &[Vec<u8>], key: &[Vec<u8>]) -> bool {
    match (pattern, key) {
        ([], []) => true,
        ([hash, rest @ ..], _) if hash == b"#" => {
            fits_pattern(rest, key) || key.split_first().is_some_and(|(_, key)| fits_pattern(pattern, key))
        }
        ([word, rest @ ..], [first, key @ ..]) => (word == b"*" || word == first) && fits_pattern(rest, key),
        _ => false,
    }
}

/// What a binding's arguments mean, the same way.
fn fits_arguments(arguments: Table<'_>, headers: Table<'_>) -> bool {
    let (any, with_x) = match arguments.get(b"x-match") {
        None | Some(Value::String(b"all")) => (false, false),
        Some(Value::String(b"any")) => (true, false),
        Some(Value::String(b"all-with-x")) => (false, true),
        Some(Value::String(b"any-with-x")) => (true, true),
        // It could not have been bound.
        Some(_) => return false,
    };
    let wanted =
        arguments.iter().filter(|(name, _)| *name != b"x-match" && (with_x || !name.starts_with(b"x-")));
    let mut has = wanted.map(|(name, wanted)| {
        headers.get(name).is_some_and(|value| wanted == Value::Void || value.means(wanted))
    });
    if any { has.any(|has| has) } else { has.all(|has| has) }
}
