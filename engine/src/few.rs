//! Most often one, sometimes several: a list that takes no memory of its own for one.

use std::ops::Deref;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct Few<T>(Inner<T>);

#[derive(Clone, PartialEq, Eq)]
enum Inner<T> {
    One(T),
    Other(Vec<T>),
}

impl<T> Few<T> {
    /// One.
    pub fn one(item: T) -> Few<T> {
        Few(Inner::One(item))
    }
}

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few(Inner::Other(Vec::new()))
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.0 {
            Inner::One(item) => std::slice::from_ref(item),
            Inner::Other(items) => items,
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(items: Vec<T>) -> Few<T> {
        match <[T; 1]>::try_from(items) {
            Ok([item]) => Few::one(item),
            Err(items) => Few(Inner::Other(items)),
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Few<T> {
        Few::from(Vec::from_iter(items))
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_the_vector_held_that_it_was_made_from() {
        for items in [vec![], vec![1], vec![1, 2]] {
            let few = Few::from(items.clone());
            assert_eq!(few[..], items[..]);
            assert_eq!(format!("{few:?}"), format!("{items:?}"));
        }
        assert_eq!(Few::<u8>::default()[..], [0; 0]);
    }
}
