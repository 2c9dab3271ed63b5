//! Numbers that one thread writes and others read.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Instrument, Kind, Sample};

/// A number with one writer. No operation here is an atomic read-and-write: on the writer's core it costs a load and a
/// store.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }
}

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(Cell);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.add(more);
    }

    /// Brings it up to what somebody else has counted.
    pub fn reach(&self, total: u64) {
        self.0.set(total);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Instrument for Counter {
    fn kind(&self) -> Kind {
        Kind::Counter
    }

    fn show(&self, show: &mut dyn FnMut(Option<&str>, Sample)) {
        show(None, Sample::Value(self.get()));
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(Cell);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Instrument for Gauge {
    fn kind(&self) -> Kind {
        Kind::Gauge
    }

    fn show(&self, show: &mut dyn FnMut(Option<&str>, Sample)) {
        show(None, Sample::Value(self.get()));
    }
}

/// The largest of the values recorded between the last [`Peak::roll`] but one and now. A reader cannot reset it: two
/// that did would hide peaks from each other.
#[derive(Debug, Default)]
pub struct Peak {
    current: Cell,
    previous: Cell,
}

impl Peak {
    /// Takes a value.
    pub fn record(&self, value: u64) {
        if value > self.current.get() {
            self.current.set(value);
        }
    }

    /// Begins a new span of time; what was recorded before the last one is forgotten.
    pub fn roll(&self) {
        self.previous.set(self.current.get());
        self.current.set(0);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.current.get().max(self.previous.get())
    }
}

impl Instrument for Peak {
    fn kind(&self) -> Kind {
        Kind::Gauge
    }

    fn show(&self, show: &mut dyn FnMut(Option<&str>, Sample)) {
        show(None, Sample::Value(self.get()));
    }
}

/// How often a value was how large: `N` buckets, whose upper bounds are `UNIT`, twice that, and so on.
#[derive(Debug)]
pub struct Histogram<const UNIT: u64, const N: usize> {
    buckets: [Cell; N],
    above: Cell,
    sum: Cell,
}

/// Times from 1 us to 8 s.
pub type Seconds = Histogram<1_000, 24>;
/// Times from 16 us to 67 s, for what may wait for others.
pub type Waits = Histogram<16_000, 23>;
/// Bytes of what is written to disk at once: from one block of 4 KiB to 1 MiB.
pub type Bytes = Histogram<4096, 9>;
/// Numbers of things up to 4096.
pub type Counts = Histogram<1, 13>;

impl<const UNIT: u64, const N: usize> Default for Histogram<UNIT, N> {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| Cell::default()),
            above: Cell::default(),
            sum: Cell::default(),
        }
    }
}

impl<const UNIT: u64, const N: usize> Histogram<UNIT, N> {
    /// Takes a value.
    pub fn record(&self, value: u64) {
        // The smallest power of two that so many units, rounded up, do not exceed.
        let power = u64::BITS - value.div_ceil(UNIT).saturating_sub(1).leading_zeros();
        self.buckets.get(power as usize).unwrap_or(&self.above).add(1);
        self.sum.add(value);
    }

    /// How many values were taken.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Cell::get).sum::<u64>() + self.above.get()
    }
}

impl<const UNIT: u64, const N: usize> Instrument for Histogram<UNIT, N> {
    fn kind(&self) -> Kind {
        Kind::Histogram
    }

    fn show(&self, show: &mut dyn FnMut(Option<&str>, Sample)) {
        let bounds = (0..N).map(|power| UNIT << power);
        let buckets = bounds.zip(self.buckets.iter().map(Cell::get)).collect();
        show(None, Sample::Histogram { buckets, above: self.above.get(), sum: self.sum.get() });
    }
}

/// One instrument for each value of a label.
#[derive(Debug)]
pub struct Family<T> {
    label: &'static str,
    members: Vec<(String, T)>,
}

impl<T: Default> Family<T> {
    /// One for each of these values of the label.
    pub fn new(label: &'static str, values: impl IntoIterator<Item = impl Into<String>>) -> Family<T> {
        Family { label, members: values.into_iter().map(|value| (value.into(), T::default())).collect() }
    }

    /// The one for the value that came `place`th.
    pub fn at(&self, place: usize) -> &T {
        &self.members[place].1
    }

    /// The same, if there is one.
    pub fn get(&self, place: usize) -> Option<&T> {
        self.members.get(place).map(|(_, member)| member)
    }
}

impl<T: Instrument + Default> Instrument for Family<T> {
    fn kind(&self) -> Kind {
        T::default().kind()
    }

    fn label(&self) -> Option<&'static str> {
        Some(self.label)
    }

    fn show(&self, show: &mut dyn FnMut(Option<&str>, Sample)) {
        for (value, member) in &self.members {
            member.show(&mut |_, sample| show(Some(value), sample));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets<const UNIT: u64, const N: usize>(histogram: &Histogram<UNIT, N>) -> (Vec<u64>, u64, u64) {
        let mut shown = None;
        histogram.show(&mut |_, sample| shown = Some(sample));
        match shown {
            Some(Sample::Histogram { buckets, above, sum }) => {
                (buckets.into_iter().map(|(_, count)| count).collect(), above, sum)
            }
            _ => panic!("a histogram shows a histogram"),
        }
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_one_more_to_the_next() {
        let histogram = Histogram::<10, 3>::default();
        for value in [0, 1, 10, 11, 20, 21, 40, 41, u64::MAX / 2] {
            histogram.record(value);
        }
        assert_eq!(buckets(&histogram), (vec![3, 2, 2], 2, 144 + u64::MAX / 2));
        assert_eq!(histogram.count(), 9);
    }

    #[test]
    fn a_peak_lasts_for_one_span_after_its_own() {
        let peak = Peak::default();
        peak.record(7);
        peak.record(5);
        peak.roll();
        peak.record(3);
        assert_eq!(peak.get(), 7);
        peak.roll();
        assert_eq!(peak.get(), 3);
        peak.roll();
        assert_eq!(peak.get(), 0);
    }

    #[test]
    fn a_family_shows_each_member_under_its_label() {
        let family = Family::<Counter>::new("step", ["a", "b"]);
        family.at(1).add(2);
        let mut shown = Vec::new();
        family.show(&mut |value, sample| {
            let Sample::Value(number) = sample else { panic!("a counter is a number") };
            shown.push((value.map(str::to_owned), number));
        });
        assert_eq!(shown, [(Some("a".to_owned()), 0), (Some("b".to_owned()), 2)]);
    }
}
