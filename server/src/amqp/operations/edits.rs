//! What goes with what: bindings with their ends, exchanges with their last binding.

use std::collections::BTreeSet;

use millstream_engine::shard::change::Edit;

use crate::amqp::topology::Vhost;
use crate::amqp::topology::entries::{Binding, Destination, EXCHANGE, key};

/// The edits that remove bindings, and with them the exchanges that were to stay as long as they have some.
pub fn binding_edits(vhost: &Vhost, bindings: impl IntoIterator<Item = Binding>) -> Vec<Edit> {
    let mut gone: BTreeSet<Binding> = BTreeSet::new();
    let mut exchanges: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut next: Vec<Binding> = bindings.into_iter().collect();
    while let Some(binding) = next.pop() {
        let source = binding.source.clone();
        gone.insert(binding);
        let goes = vhost.exchange(&source).is_some_and(|exchange| exchange.value.auto_delete)
            && vhost.bindings_from(&source).all(|binding| gone.contains(binding));
        if goes && exchanges.insert(source.clone()) {
            next.extend(vhost.bindings_to(&Destination::Exchange(source)).cloned());
        }
    }
    let bindings = gone.iter().map(|binding| Edit::RemoveEntry(binding.key(&vhost.name)));
    let exchanges = exchanges.iter().map(|name| Edit::RemoveEntry(key(EXCHANGE, &[&vhost.name, name])));
    bindings.chain(exchanges).collect()
}

/// The edits that tidy up what two changes at the same time have left of a vhost, if anything.
pub fn loose_ends(vhost: &Vhost) -> Vec<Edit> {
    binding_edits(vhost, vhost.loose_bindings().cloned().collect::<Vec<_>>())
}
