//! What a channel has done, for whoever looks after the node.

use std::collections::BTreeMap;

use super::state::Desk;
use super::topology::Vhost;

/// By exchange: messages that came to it, and queues that they went to.
pub type Accounts = BTreeMap<Vec<u8>, (u64, u64)>;

/// What was published to one exchange and is not in the shard's account yet: mostly a channel publishes to one only.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    exchange: Vec<u8>,
    came_in: u64,
    went_out: u64,
}

impl Tally {
    /// A message came to an exchange, and goes to so many queues.
    pub fn add(&mut self, vhost: &[u8], exchange: &[u8], queues: usize, desk: &mut Desk<'_>) {
        if self.exchange != exchange {
            self.flush(vhost, desk);
            self.exchange.clear();
            self.exchange.extend_from_slice(exchange);
        }
        self.came_in += 1;
        self.went_out += queues as u64;
    }

    /// Puts it into the account.
    pub fn flush(&mut self, vhost: &[u8], desk: &mut Desk<'_>) {
        if self.came_in == 0 {
            return;
        }
        let known = desk.state.exchanges.get_mut(vhost).and_then(|vhost| vhost.get_mut(&self.exchange));
        let counted = (std::mem::take(&mut self.came_in), std::mem::take(&mut self.went_out));
        if let Some(account) = known {
            *account = (account.0 + counted.0, account.1 + counted.1);
            return;
        }
        // It may have gone meanwhile; the default exchange is always there.
        let is_there = |vhost: &Vhost| self.exchange.is_empty() || vhost.exchange(&self.exchange).is_some();
        if desk.vhost(vhost).is_some_and(is_there) {
            let accounts = desk.state.exchanges.entry(vhost.to_vec()).or_default();
            accounts.insert(self.exchange.clone(), counted);
        }
    }
}

/// Messages since the channel was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Published.
    pub published: u64,
    /// Confirmed, or refused.
    pub confirmed: u64,
    /// Returned, since they went to no queue.
    pub returned: u64,
    /// Dropped, since they went to no queue and nobody wanted them back.
    pub dropped: u64,
    /// Delivered to consumers who acknowledge.
    pub delivered: u64,
    /// Delivered to those who do not.
    pub delivered_no_ack: u64,
    /// Got one by one, to be acknowledged.
    pub got: u64,
    /// Got one by one, not to be.
    pub got_no_ack: u64,
    /// How often there was none to be got.
    pub got_empty: u64,
    /// Of those given out, what may have been delivered before.
    pub redelivered: u64,
    /// Acknowledged.
    pub acked: u64,
}
