//! Prometheus' text format, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{self, Write};

use millstream_engine::metrics::{Kind, Metric, Row, Sample, Unit};

/// What the format is called over HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Adds a table that several shards have, or one that nobody in particular has. All values of a metric stand
    /// together, as the format demands.
    pub fn table(&mut self, owners: &[(Option<String>, Vec<Row<'_>>)]) {
        let Some((_, first)) = owners.first() else { return };
        for (place, row) in first.iter().enumerate() {
            self.head(row);
            for (shard, rows) in owners {
                self.values(shard.as_deref(), &rows[place]);
            }
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.text.write_fmt(line).and_then(|()| self.text.write_char('\n')).expect("a string takes anything");
    }

    fn head(&mut self, row: &Row<'_>) {
        let Metric { name, help, .. } = row.metric;
        let kind = kind_name(row.instrument.kind());
        // Neither a backslash nor a line's end stands in any help: there is a test.
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn values(&mut self, shard: Option<&str>, row: &Row<'_>) {
        let Metric { name, unit, .. } = *row.metric;
        let label = row.instrument.label();
        row.instrument.show(&mut |value, sample| {
            let labels = Labels { shard, own: label.zip(value), bound: None };
            match sample {
                Sample::Value(number) => self.line(format_args!("{name}{labels} {}", Number(number, unit))),
                Sample::Histogram { buckets, above, sum } => {
                    let mut count = 0;
                    for (bound, more) in buckets {
                        count += more;
                        let labels = Labels { bound: Some(Bound::At(Number(bound, unit))), ..labels };
                        self.line(format_args!("{name}_bucket{labels} {count}"));
                    }
                    count += above;
                    let endless = Labels { bound: Some(Bound::Endless), ..labels };
                    self.line(format_args!("{name}_bucket{endless} {count}"));
                    self.line(format_args!("{name}_sum{labels} {}", Number(sum, unit)));
                    self.line(format_args!("{name}_count{labels} {count}"));
                }
            }
        });
    }
}

/// A kind's name in the format.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// A number in its unit.
#[derive(Clone, Copy)]
struct Number(u64, Unit);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Number(number, unit) = *self;
        match unit {
            Unit::Count | Unit::Bytes => write!(f, "{number}"),
            Unit::Seconds => {
                let (whole, rest) = (number / 1_000_000_000, number % 1_000_000_000);
                if rest == 0 {
                    return write!(f, "{whole}");
                }
                f.write_str(format!("{whole}.{rest:09}").trim_end_matches('0'))
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Bound {
    At(Number),
    Endless,
}

#[derive(Clone, Copy)]
struct Labels<'a> {
    shard: Option<&'a str>,
    own: Option<(&'static str, &'a str)>,
    bound: Option<Bound>,
}

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        let mut label = |name: &str, value: &dyn fmt::Display| {
            write!(f, "{before}{name}=\"{value}\"")?;
            before = ',';
            Ok(())
        };
        if let Some(shard) = self.shard {
            label("shard", &shard)?;
        }
        if let Some((name, value)) = self.own {
            label(name, &value)?;
        }
        match self.bound {
            None => {}
            Some(Bound::At(number)) => label("le", &number)?,
            Some(Bound::Endless) => label("le", &"+Inf")?,
        }
        if before == ',' { f.write_char('}') } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::metrics;
    use millstream_engine::metrics::{Counter, Family, Gauge, Histogram, Table};

    use super::*;

    metrics! {
        /// One of each kind.
        pub struct Three {
            bytes: Counter = Counter::default(), Bytes, "some_bytes_total", "Bytes.";
            steps: Family<Gauge> = Family::new("step", ["a", "b"]), Seconds, "some_seconds", "Steps.";
            times: Histogram<1_000, 2> = Histogram::default(), Seconds, "some_times_seconds", "Times.";
        }
    }

    #[test]
    fn the_values_of_all_shards_stand_under_one_head() {
        let (zero, one) = (Three::default(), Three::default());
        zero.bytes.add(3);
        one.bytes.add(4);
        one.steps.at(1).set(1_500_000_000);
        for time in [1, 1_001, 1_002, 9_000] {
            zero.times.record(time);
        }
        let mut text = Exposition::default();
        text.table(&[(Some("0".to_owned()), zero.rows()), (Some("1".to_owned()), one.rows())]);
        let expected = r#"# HELP some_bytes_total Bytes.
# TYPE some_bytes_total counter
some_bytes_total{shard="0"} 3
some_bytes_total{shard="1"} 4
# HELP some_seconds Steps.
# TYPE some_seconds gauge
some_seconds{shard="0",step="a"} 0
some_seconds{shard="0",step="b"} 0
some_seconds{shard="1",step="a"} 0
some_seconds{shard="1",step="b"} 1.5
# HELP some_times_seconds Times.
# TYPE some_times_seconds histogram
some_times_seconds_bucket{shard="0",le="0.000001"} 1
some_times_seconds_bucket{shard="0",le="0.000002"} 3
some_times_seconds_bucket{shard="0",le="+Inf"} 4
some_times_seconds_sum{shard="0"} 0.000011004
some_times_seconds_count{shard="0"} 4
some_times_seconds_bucket{shard="1",le="0.000001"} 0
some_times_seconds_bucket{shard="1",le="0.000002"} 0
some_times_seconds_bucket{shard="1",le="+Inf"} 0
some_times_seconds_sum{shard="1"} 0
some_times_seconds_count{shard="1"} 0
"#;
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn what_nobody_in_particular_has_needs_no_labels() {
        let table = Three::default();
        table.bytes.add(1);
        let mut text = Exposition::default();
        text.table(&[(None, table.rows())]);
        assert!(text.finish().contains("\nsome_bytes_total 1\n"));
    }
}
