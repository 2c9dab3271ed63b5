//! The mesh with real threads, and its bookkeeping without.

use std::sync::{Arc, Condvar, Mutex};

use super::*;

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);

fn pair(slots: usize) -> (Post<u32, u32>, Post<u32, u32>) {
    let posts: [Post<u32, u32>; 2] = mesh(2, slots).try_into().ok().expect("a mesh of two has two posts");
    posts.into()
}

fn take<Q, R>(post: &mut Post<Q, R>, most: usize) -> Vec<Mail<Q, R>> {
    let mut mail = Vec::new();
    post.take(most, &mut mail);
    mail
}

#[test]
fn requests_and_replies_arrive_in_order_with_their_sender() {
    let (mut a, mut b) = pair(8);
    a.send(B, 1).unwrap();
    a.send(B, 2).unwrap();
    assert_eq!(take(&mut b, 10), [], "taken before it was published");
    a.publish(|_| panic!("nobody sleeps"));
    assert_eq!(take(&mut b, 10), [Mail::Request(A, 1), Mail::Request(A, 2)]);
    b.reply(A, 20);
    b.reply(A, 10);
    b.publish(|_| panic!("nobody sleeps"));
    assert_eq!(take(&mut a, 10), [Mail::Reply(B, 20), Mail::Reply(B, 10)]);
}

#[test]
fn a_shard_talks_to_itself_the_same_way() {
    let (mut a, mut b) = pair(1);
    a.send(A, 7).unwrap();
    assert_eq!(a.send(A, 8), Err(8));
    a.publish(|_| panic!("nobody sleeps"));
    assert!(!a.announce_sleep(), "slept over its own request");
    assert_eq!(take(&mut a, 10), [Mail::Request(A, 7)]);
    a.reply(A, 70);
    a.publish(|_| panic!("nobody sleeps"));
    assert_eq!(take(&mut a, 10), [Mail::Reply(A, 70)]);
    assert_eq!(a.credit(A), 1);
    assert_eq!(take(&mut b, 10), []);
}

#[test]
fn credit_runs_out_with_each_peer_alone_and_comes_back_with_the_replies() {
    let (mut a, mut b) = pair(2);
    a.send(B, 1).unwrap();
    a.send(B, 2).unwrap();
    assert_eq!((a.send(B, 3), a.credit(B), a.credit(A)), (Err(3), 0, 2));
    a.publish(|_| {});
    assert_eq!(take(&mut b, 10).len(), 2);
    assert_eq!(a.send(B, 3), Err(3), "a request that was taken and not answered still counts");
    b.reply(A, 1);
    b.publish(|_| {});
    assert_eq!(take(&mut a, 10), [Mail::Reply(B, 1)]);
    a.send(B, 3).unwrap();
    assert_eq!(a.send(B, 4), Err(4));
}

#[test]
fn a_take_is_bounded_and_no_peer_starves_another() {
    let mut posts: Vec<Post<u32, u32>> = mesh(3, 8);
    for post in &mut posts {
        for request in 0..8 {
            post.send(B, request).unwrap();
        }
        post.publish(|_| {});
    }
    let senders: Vec<_> = (0..3)
        .flat_map(|_| take(&mut posts[1], 4))
        .map(|mail| match mail {
            Mail::Request(from, _) | Mail::Reply(from, _) => from.0,
        })
        .collect();
    assert_eq!(senders, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    assert!(!posts[1].announce_sleep(), "slept over what was left");
}

#[test]
fn a_sleeping_peer_is_rung_once_and_a_waking_one_not_at_all() {
    let (mut a, b) = pair(8);
    let mut rung = Vec::new();
    assert!(b.announce_sleep());
    for request in 0..3 {
        a.send(B, request).unwrap();
        a.publish(|peer| rung.push(peer));
    }
    assert_eq!(rung, [B]);
    b.awake();
    a.send(B, 3).unwrap();
    a.publish(|peer| panic!("{peer:?} is awake"));
}

#[test]
fn a_ring_has_fewer_slots_among_many_shards() {
    assert_eq!(slots(1), MAILBOX_SLOTS);
    for shards in 1..=crate::limits::SHARDS_MAX {
        assert!(slots(shards).is_power_of_two());
        assert!(slots(shards) * usize::from(shards) <= MAILBOX_SLOTS_INBOUND_MAX);
    }
}

/// A bell as the kernel has it: a ring is remembered until the next wait.
#[derive(Default)]
struct Gong {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Gong {
    fn ring(&self) {
        *self.rung.lock().expect("nobody panics with it") = true;
        self.heard.notify_one();
    }

    fn wait(&self) {
        let mut rung = self
            .heard
            .wait_while(self.rung.lock().expect("nobody panics with it"), |rung| !*rung)
            .expect("nor here");
        *rung = false;
    }
}

/// Two shards ask each other, and themselves, more than the rings hold, and sleep whenever they have nothing to do.
/// A wake-up lost, or a message, leaves the test hanging.
#[test]
fn shards_that_sleep_between_messages_answer_every_request() {
    const REQUESTS: usize = if cfg!(miri) { 100 } else { 100_000 };
    let gongs: Arc<[Gong; 2]> = Arc::default();
    let threads: Vec<_> = mesh::<usize, usize>(2, 4)
        .into_iter()
        .map(|mut post| {
            let gongs = Arc::clone(&gongs);
            std::thread::spawn(move || {
                let (mut sent, mut served, mut answers) = ([0; 2], 0, [0; 2]);
                let mut mail = Vec::new();
                while served < 2 * REQUESTS || answers != [REQUESTS; 2] {
                    post.take(3, &mut mail);
                    for message in mail.drain(..) {
                        match message {
                            Mail::Request(from, request) => {
                                served += 1;
                                post.reply(from, request);
                            }
                            Mail::Reply(from, reply) => {
                                let answer = &mut answers[usize::from(from.0)];
                                assert_eq!(reply, *answer);
                                *answer += 1;
                            }
                        }
                    }
                    for to in [A, B] {
                        let next = &mut sent[usize::from(to.0)];
                        while *next < REQUESTS && post.send(to, *next).is_ok() {
                            *next += 1;
                        }
                    }
                    post.publish(|peer| gongs[usize::from(peer.0)].ring());
                    let done = served == 2 * REQUESTS && answers == [REQUESTS; 2];
                    if !done && post.announce_sleep() {
                        gongs[usize::from(post.id().0)].wait();
                        post.awake();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
