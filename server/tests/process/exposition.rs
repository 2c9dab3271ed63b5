//! A strict reader of Prometheus' text format: whatever the format forbids ends the test.

use std::collections::{BTreeMap, BTreeSet};

/// Every series, by its name and labels as they are written, and its value.
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// The value of one series.
    pub fn value(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("there is no {series}"))
    }

    /// The sum over the series of a metric whose labels hold all of these.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let wanted = |series: &str| {
            let (base, rest) = series.split_once('{').unwrap_or((series, ""));
            base == name && labels.iter().all(|label| rest.contains(label))
        };
        let found: Vec<f64> =
            self.0.iter().filter(|(series, _)| wanted(series)).map(|(_, value)| *value).collect();
        assert!(!found.is_empty(), "there is no {name} with {labels:?}");
        found.iter().sum()
    }
}

/// Reads a text.
pub fn parse(text: &str) -> Scrape {
    assert!(text.ends_with('\n'), "the last line must end, too");
    let mut lines = text.lines().peekable();
    let mut seen = BTreeSet::new();
    let mut all = BTreeMap::new();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
        assert!(is_name(name, ":") && !help.is_empty(), "{line}");
        assert!(seen.insert(name.to_owned()), "{name} stands in two places");
        let line = lines.next().expect("a type follows a help");
        let (typed, kind) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')).expect(line);
        assert_eq!(typed, name);
        let mut family = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let value: f64 = value.parse().expect(line);
            assert!(value >= 0.0, "nothing here is negative: {line}");
            assert!(all.insert(series.to_owned(), value).is_none(), "{series} stands in two places");
            family.push((Series::parse(series), value));
        }
        match kind {
            "counter" => assert!(name.ends_with("_total"), "{name}"),
            "gauge" => assert!(!name.ends_with("_total"), "{name}"),
            "histogram" => {
                check_histogram(name, &family);
                continue;
            }
            _ => panic!("{line}"),
        }
        assert!(family.iter().all(|(series, _)| series.name == name), "{name} has series of another name");
    }
    Scrape(all)
}

struct Series {
    name: String,
    labels: Vec<(String, String)>,
}

impl Series {
    fn parse(text: &str) -> Series {
        let (name, mut rest) = match text.split_once('{') {
            None => (text, ""),
            Some((name, labels)) => {
                (name, labels.strip_suffix('}').filter(|labels| !labels.is_empty()).expect(text))
            }
        };
        assert!(is_name(name, ":"), "{text}");
        let mut labels: Vec<(String, String)> = Vec::new();
        while !rest.is_empty() {
            let (label, behind) = rest.split_once("=\"").expect(text);
            let (value, behind) = behind.split_once('"').expect(text);
            assert!(is_name(label, ""), "{text}");
            assert!(!value.contains('\\'), "no label here needs an escape: {text}");
            assert!(labels.iter().all(|(other, _)| other != label), "{text}");
            labels.push((label.to_owned(), value.to_owned()));
            rest = match behind.strip_prefix(',') {
                Some(more) => Some(more).filter(|more| !more.is_empty()).expect(text),
                None => Some(behind).filter(|behind| behind.is_empty()).expect(text),
            };
        }
        Series { name: name.to_owned(), labels }
    }
}

fn is_name(name: &str, beside: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphabetic() || c == '_' || beside.contains(c);
    name.starts_with(fits) && name.chars().all(|c| fits(c) || c.is_ascii_digit())
}

#[derive(Default)]
struct Histogram {
    /// Upper bounds, and how many values lie at or below them.
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

/// For each set of labels: bounds that rise up to infinity, counts that do not fall, a sum, and a count that is the last
/// bucket's.
fn check_histogram(name: &str, family: &[(Series, f64)]) {
    let mut groups: BTreeMap<Vec<_>, Histogram> = BTreeMap::new();
    for (series, value) in family {
        let (bounds, labels): (Vec<_>, Vec<_>) =
            series.labels.iter().cloned().partition(|(label, _)| label == "le");
        let group = groups.entry(labels).or_default();
        match series.name.strip_prefix(name) {
            Some("_bucket") => group.buckets.push((bounds[0].1.parse().unwrap(), *value)),
            Some("_sum") => assert_eq!((bounds.len(), group.sum.replace(*value)), (0, None)),
            Some("_count") => assert_eq!((bounds.len(), group.count.replace(*value)), (0, None)),
            _ => panic!("{name} has the series {}", series.name),
        }
    }
    for (labels, Histogram { buckets, sum, count }) in groups {
        let (last_bound, last) = *buckets.last().expect("a histogram has buckets");
        assert!(last_bound.is_infinite(), "{name} {labels:?}");
        let rises = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        assert!(buckets.windows(2).all(rises), "{name} {labels:?}: {buckets:?}");
        assert_eq!(Some(last), count, "{name} {labels:?}");
        assert!(sum.is_some(), "{name} {labels:?}");
    }
}
