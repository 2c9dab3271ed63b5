//! What most data requests and responses are made of: partitions, grouped under the names of their topics.

use super::codec::{Malformed, Writer};
use crate::limits::{PARTITIONS_PER_REQUEST_MAX, TOPICS_PER_REQUEST_MAX};

/// Partitions of type `P` under their topics, in the order in which the request names them. Three allocations, however
/// many topics there are; it outlives the frame that it was read from.
#[derive(Debug)]
pub struct Topics<P> {
    names: String,
    /// Per topic, where its name and its partitions end.
    ends: Vec<(usize, usize)>,
    partitions: Vec<P>,
}

impl<P> Topics<P> {
    /// None yet.
    pub fn new() -> Topics<P> {
        Topics { names: String::new(), ends: Vec::new(), partitions: Vec::new() }
    }

    /// Starts a topic.
    pub fn push_topic(&mut self, name: &str) -> Result<(), Malformed> {
        if self.ends.len() >= TOPICS_PER_REQUEST_MAX {
            return Err(Malformed("the request names too many topics"));
        }
        self.names.push_str(name);
        self.ends.push((self.names.len(), self.partitions.len()));
        Ok(())
    }

    /// Adds a partition to the topic that was started last.
    pub fn push_partition(&mut self, partition: P) -> Result<(), Malformed> {
        if self.partitions.len() >= PARTITIONS_PER_REQUEST_MAX {
            return Err(Malformed("the request names too many partitions"));
        }
        self.partitions.push(partition);
        let (_, end) = self.ends.last_mut().expect("a partition follows its topic");
        *end = self.partitions.len();
        Ok(())
    }

    /// All partitions, over all topics.
    pub fn partitions(&self) -> &[P] {
        &self.partitions
    }

    /// All partitions, over all topics.
    pub fn partitions_mut(&mut self) -> &mut [P] {
        &mut self.partitions
    }

    /// Bytes that the names take, for estimating a response.
    pub fn names_len(&self) -> usize {
        self.names.len()
    }

    /// Topics in order, each with its partitions.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[P])> {
        let mut name_start = 0;
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let name = self.names.get(name_start..name_end).expect("names end where push_topic says");
            let partitions = self.partitions.get(start..end).expect("ends rise up to the last partition");
            (name_start, start) = (name_end, end);
            (name, partitions)
        })
    }

    /// Calls `each` for every partition, with its topic's name and its place among all partitions.
    pub fn for_each_mut(&mut self, mut each: impl FnMut(&str, u32, &mut P)) {
        let mut name_start = 0;
        let mut partitions = self.partitions.iter_mut().enumerate();
        let mut start = 0;
        for &(name_end, end) in &self.ends {
            let name = self.names.get(name_start..name_end).expect("names end where push_topic says");
            for (index, partition) in partitions.by_ref().take(end - start) {
                each(name, index as u32, partition);
            }
            (name_start, start) = (name_end, end);
        }
    }

    /// The partition at a place among all partitions.
    pub fn partition_mut(&mut self, place: u32) -> &mut P {
        self.partitions.get_mut(place as usize).expect("places are those that for_each_mut gave out")
    }

    /// Writes the array of topics, each with its array of partitions, which is what the responses share.
    pub fn write(&self, writer: &mut Writer, mut partition: impl FnMut(&mut Writer, &P)) {
        writer.count(self.ends.len());
        for (name, partitions) in self.iter() {
            writer.string(name);
            writer.count(partitions.len());
            for each in partitions {
                partition(writer, each);
                writer.tags();
            }
            writer.tags();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_stay_under_their_topics() {
        let mut topics = Topics::new();
        topics.push_topic("a").unwrap();
        topics.push_partition(1).unwrap();
        topics.push_partition(2).unwrap();
        topics.push_topic("empty").unwrap();
        topics.push_topic("c").unwrap();
        topics.push_partition(3).unwrap();
        let listed: Vec<_> = topics.iter().collect();
        assert_eq!(listed, [("a", &[1, 2][..]), ("empty", &[][..]), ("c", &[3][..])]);
        let mut visited = Vec::new();
        topics.for_each_mut(|name, place, partition| visited.push((name.to_owned(), place, *partition)));
        let expected = [("a", 0, 1), ("a", 1, 2), ("c", 2, 3)];
        assert_eq!(visited, expected.map(|(name, place, partition)| (name.to_owned(), place, partition)));
    }

    #[test]
    fn a_request_may_not_name_more_than_the_limit() {
        let mut topics = Topics::new();
        topics.push_topic("a").unwrap();
        for index in 0..PARTITIONS_PER_REQUEST_MAX {
            topics.push_partition(index).unwrap();
        }
        assert!(topics.push_partition(0).is_err());
    }
}
