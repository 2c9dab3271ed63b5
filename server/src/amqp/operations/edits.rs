//! What goes with what: bindings with their ends, exchanges with their last binding.

use std::collections::BTreeSet;

use millstream_engine::shard::change::Edit;

use crate::amqp::topology::entries::{Binding, Destination, EXCHANGE, key};
use crate::amqp::topology::{Queue, Touched, Vhost};

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

/// The edits that tidy up what has been left behind by changes at the same time, if anything; and those that let other policies
/// hold.
pub fn tidying_edits(vhost: &Vhost, touched: &Touched) -> Vec<Edit> {
    let mut bindings: Vec<Binding> = Vec::new();
    let mut queues: Vec<&Queue> = Vec::new();
    let mut edits = Vec::new();
    match touched {
        Touched::Exchange(name) => {
            bindings.extend(vhost.bindings_from(name).cloned());
            bindings.extend(vhost.bindings_to(&Destination::Exchange(name.clone())).cloned());
        }
        Touched::Queue(name) => {
            bindings.extend(vhost.bindings_to(&Destination::Queue(name.clone())).cloned());
            queues.extend(vhost.queue(name));
        }
        Touched::Binding(binding) => {
            bindings.push(binding.clone());
            let source = vhost.exchange(&binding.source).filter(|exchange| exchange.value.auto_delete);
            if source.is_some_and(|exchange| exchange.bindings.is_empty()) {
                edits.push(Edit::RemoveEntry(key(EXCHANGE, &[&vhost.name, &binding.source])));
            }
        }
        Touched::Settings(names) => queues.extend(names.iter().filter_map(|name| vhost.queue(name))),
    }
    bindings.retain(|binding| vhost.is_loose(binding));
    edits.extend(binding_edits(vhost, bindings));
    for queue in queues.iter().filter(|queue| queue.settings != queue.wishes.settings) {
        edits.push(Edit::ConfigureQueue { queue: queue.id, settings: queue.wishes.settings.clone() });
    }
    edits
}
