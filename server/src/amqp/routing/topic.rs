//! Patterns of words: `*` is one word, `#` any number of them. A trie of patterns, gone through word by word with all places at
//! once that a key may have come to, so that no pattern makes the search longer than the trie is large.

use std::collections::BTreeMap;

/// Patterns, and what stands behind each.
#[derive(Clone, Debug)]
pub struct Trie<T> {
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    words: BTreeMap<Box<[u8]>, u32>,
    /// Behind `*`.
    one: Option<u32>,
    /// Behind `#`.
    any: Option<u32>,
    /// Whether this is behind `#`: a word may lead back here.
    is_any: bool,
    values: Vec<T>,
}

impl<T> Node<T> {
    fn new(is_any: bool) -> Node<T> {
        Node { words: BTreeMap::new(), one: None, any: None, is_any, values: Vec::new() }
    }

    fn is_unused(&self) -> bool {
        self.words.is_empty() && self.one.is_none() && self.any.is_none() && self.values.is_empty()
    }
}

const ROOT: u32 = 0;

impl<T> Default for Trie<T> {
    fn default() -> Trie<T> {
        Trie { nodes: vec![Node::new(false)], free: Vec::new() }
    }
}

/// The words of a pattern. Several `#` in a row mean what one does.
fn pattern_words(pattern: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut last: &[u8] = b"";
    words(pattern).filter(move |word| {
        let again = *word == b"#" && last == b"#";
        last = word;
        !again
    })
}

fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    // An empty key has no word, where splitting would find an empty one.
    key.split(|byte| *byte == b'.').filter(move |_| !key.is_empty())
}

impl<T: PartialEq> Trie<T> {
    fn node(&self, index: u32) -> &Node<T> {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node<T> {
        &mut self.nodes[index as usize]
    }

    fn child(&self, index: u32, word: &[u8]) -> Option<u32> {
        let node = self.node(index);
        match word {
            b"*" => node.one,
            b"#" => node.any,
            word => node.words.get(word).copied(),
        }
    }

    fn set_child(&mut self, index: u32, word: &[u8], child: Option<u32>) {
        let node = self.node_mut(index);
        match (word, child) {
            (b"*", child) => node.one = child,
            (b"#", child) => node.any = child,
            (word, Some(child)) => {
                node.words.insert(word.into(), child);
            }
            (word, None) => {
                node.words.remove(word);
            }
        }
    }

    fn grow(&mut self, is_any: bool) -> u32 {
        match self.free.pop() {
            Some(index) => {
                *self.node_mut(index) = Node::new(is_any);
                index
            }
            None => {
                self.nodes.push(Node::new(is_any));
                self.nodes.len() as u32 - 1
            }
        }
    }

    /// Puts a value behind a pattern.
    pub fn insert(&mut self, pattern: &[u8], value: T) {
        let mut place = ROOT;
        for word in pattern_words(pattern) {
            place = match self.child(place, word) {
                Some(child) => child,
                None => {
                    let child = self.grow(word == b"#");
                    self.set_child(place, word, Some(child));
                    child
                }
            };
        }
        self.node_mut(place).values.push(value);
    }

    /// Takes a value from behind a pattern.
    pub fn remove(&mut self, pattern: &[u8], value: &T) {
        let mut path = vec![ROOT];
        for word in pattern_words(pattern) {
            match path.last().and_then(|place| self.child(*place, word)) {
                Some(child) => path.push(child),
                None => return,
            }
        }
        let place = *path.last().expect("it begins with the root");
        let values = &mut self.node_mut(place).values;
        if let Some(index) = values.iter().position(|other| other == value) {
            values.swap_remove(index);
        }
        let words: Vec<&[u8]> = pattern_words(pattern).collect();
        for (above, word) in words.iter().enumerate().rev() {
            let (Some(parent), Some(child)) = (path.get(above), path.get(above + 1)) else { return };
            if !self.node(*child).is_unused() {
                return;
            }
            self.set_child(*parent, word, None);
            self.free.push(*child);
        }
    }

    /// Goes through the values of all patterns that fit a key; a value that stands behind several of them comes as often. Gives how
    /// many places of the trie were looked at.
    pub fn matches<'t>(&'t self, key: &[u8], mut found: impl FnMut(&'t T)) -> usize {
        let mut places = Vec::new();
        let mut looked_at = 0;
        self.arrive(ROOT, &mut places);
        let mut next = Vec::new();
        for word in words(key) {
            looked_at += places.len();
            for place in places.drain(..) {
                let node = self.node(place);
                if node.is_any {
                    self.arrive(place, &mut next);
                }
                for child in [node.words.get(word).copied(), node.one].into_iter().flatten() {
                    self.arrive(child, &mut next);
                }
            }
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut places, &mut next);
        }
        looked_at += places.len();
        for place in places {
            self.node(place).values.iter().for_each(&mut found);
        }
        looked_at
    }

    /// Comes to a place, and without any word to those behind `#`.
    fn arrive(&self, place: u32, places: &mut Vec<u32>) {
        let mut next = Some(place);
        while let Some(place) = next {
            places.push(place);
            next = self.node(place).any;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(trie: &Trie<u32>, key: &str) -> Vec<u32> {
        let mut values = Vec::new();
        trie.matches(key.as_bytes(), |value| values.push(*value));
        values.sort_unstable();
        values.dedup();
        values
    }

    /// What a pattern means, said as simply as possible.
    fn fits(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => fits(rest, key) || matches!(key, [_, key @ ..] if fits(pattern, key)),
            (["*", rest @ ..], [_, key @ ..]) => fits(rest, key),
            ([word, rest @ ..], [first, key @ ..]) => word == first && fits(rest, key),
            _ => false,
        }
    }

    fn split(text: &str) -> Vec<&str> {
        if text.is_empty() { Vec::new() } else { text.split('.').collect() }
    }

    const PATTERNS: &[&str] = &[
        "",
        "a",
        "a.b",
        "*",
        "*.b",
        "#",
        "#.b",
        "a.#",
        "a.#.b",
        "#.#",
        "*.*",
        "a..b",
        ".",
        "#.a.#.b.#",
        "*.#",
        "#.*",
        "a.*.b",
        "#.#.#.b",
    ];
    const KEYS: &[&str] =
        &["", "a", "b", "a.b", "a.b.b", "a..b", ".", "..", "a.x.y.b", "b.a", "x.a.y.b.z", "a.a.a.a.b"];

    #[test]
    fn a_trie_finds_what_the_patterns_mean() {
        let mut trie = Trie::default();
        for (number, pattern) in PATTERNS.iter().enumerate() {
            trie.insert(pattern.as_bytes(), number as u32);
        }
        for key in KEYS {
            let expected: Vec<u32> = (0..PATTERNS.len() as u32)
                .filter(|number| fits(&split(PATTERNS[*number as usize]), &split(key)))
                .collect();
            assert_eq!(found(&trie, key), expected, "{key}");
        }
    }

    #[test]
    fn what_was_removed_leaves_nothing_behind() {
        let mut trie = Trie::default();
        for (number, pattern) in PATTERNS.iter().enumerate() {
            trie.insert(pattern.as_bytes(), number as u32);
        }
        for (number, pattern) in PATTERNS.iter().enumerate() {
            trie.remove(pattern.as_bytes(), &(number as u32));
        }
        assert_eq!(trie.free.len() + 1, trie.nodes.len());
        for key in KEYS {
            assert_eq!(found(&trie, key), [0; 0]);
        }
    }

    #[test]
    fn hashes_in_a_row_are_one() {
        let mut trie = Trie::default();
        let pattern = ["#"; 128].join(".");
        trie.insert(pattern.as_bytes(), 1);
        assert_eq!(found(&trie, &["a"; 128].join(".")), [1]);
        let looked_at = trie.matches(["a"; 128].join(".").as_bytes(), |_| {});
        assert!(looked_at < 3 * 128, "{looked_at}");
        trie.remove(b"#.#", &1);
        assert_eq!(found(&trie, "a"), [0; 0]);
    }

    #[test]
    fn many_hashes_and_words_cost_no_more_than_their_product() {
        let mut trie = Trie::default();
        trie.insert("#.a.".repeat(40).as_bytes(), 1);
        trie.insert(format!("{}#", "#.a.".repeat(40)).as_bytes(), 2);
        assert_eq!(found(&trie, &["a"; 120].join(".")), [2]);
        let looked_at = trie.matches(["a"; 120].join(".").as_bytes(), |_| {});
        assert!(looked_at <= 121 * trie.nodes.len(), "{looked_at}");
    }
}
