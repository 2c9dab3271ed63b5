//! Waking, helpers, clocks and chance.

use std::any::Any;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use millstream_engine::buffer::Pool;
use millstream_engine::io::uring::Peers;
use millstream_engine::io::{Event, Io, Token, Wait};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use crate::rig::{Dir, PATIENCE, Rig};

#[test]
fn a_shard_wakes_another_out_of_its_sleep() {
    let dir = Dir::new();
    let peers = Arc::new(Peers::new(2));
    let mut waker = Rig::of(&dir.0, 0, &peers, Pool::new(1 << 20));
    let (root, shared) = (dir.0.clone(), Arc::clone(&peers));
    let (tell, told) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let mut rig = Rig::of(&root, 1, &shared, Pool::new(1 << 20));
        tell.send("ready").unwrap();
        rig.poll(Wait::Until(rig.io.now() + PATIENCE));
        tell.send("awake").unwrap();
    });
    told.recv().unwrap();
    assert!(waker.is_quiet());
    assert!(told.try_recv().is_err(), "it woke by itself");
    waker.io.wake(ShardId(1));
    waker.poll(Wait::No);
    told.recv_timeout(Duration::from_secs(10)).expect("it is still asleep");
    sleeper.join().unwrap();
}

#[test]
fn a_wake_that_comes_early_is_not_lost() {
    let dir = Dir::new();
    let peers = Arc::new(Peers::new(2));
    let mut waker = Rig::of(&dir.0, 0, &peers, Pool::new(1 << 20));
    // Before there is a ring, and before that ring's shard sleeps.
    waker.io.wake(ShardId(1));
    waker.poll(Wait::No);
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let (root, shared) = (dir.0.clone(), Arc::clone(&peers));
    let sleeper = thread::spawn(move || {
        let mut rig = Rig::of(&root, 1, &shared, Pool::new(1 << 20));
        rig.poll(Wait::Forever);
        tell.send(()).unwrap();
        gone.recv().unwrap();
        rig.poll(Wait::Forever);
        tell.send(()).unwrap();
    });
    let patience = Duration::from_secs(10);
    told.recv_timeout(patience).expect("a wake before there was a ring was lost");
    waker.io.wake(ShardId(1));
    waker.poll(Wait::No);
    go.send(()).unwrap();
    told.recv_timeout(patience).expect("a wake before the sleep was lost");
    sleeper.join().unwrap();
    waker.io.wake(ShardId(0));
    waker.poll(Wait::Forever);
}

#[test]
fn a_bell_wakes_the_shard_each_time_it_is_rung() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let bell = rig.io.bell();
    bell.ring();
    bell.ring();
    rig.poll(Wait::Forever);
    for _ in 0..3 {
        let bell = Arc::clone(&bell);
        let ringer = thread::spawn(move || bell.ring());
        rig.poll(Wait::Forever);
        ringer.join().unwrap();
    }
}

#[test]
fn offloaded_jobs_run_on_other_threads_and_answer_once() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    for i in 0..20u64 {
        let job = move || -> Box<dyn Any + Send> { Box::new((i * i, thread::current().id())) };
        rig.io.offload(Token(i), Box::new(job));
    }
    let mut seen = [false; 20];
    for _ in 0..20 {
        let Event::Offloaded(Token(i), result) = rig.next() else { panic!("a job was lost") };
        let (square, on) = *result.downcast::<(u64, thread::ThreadId)>().unwrap();
        assert!(square == i * i && on != thread::current().id());
        assert!(!std::mem::replace(&mut seen[i as usize], true), "job {i} was answered twice");
    }
}

#[test]
fn a_poll_ends_at_its_time() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let until = rig.io.now() + Nanos::from_millis(5);
    rig.poll(Wait::Until(until));
    assert!(rig.io.now() >= until);
    assert!(rig.events.is_empty());
    rig.poll(Wait::Until(Nanos::ZERO));
    rig.poll(Wait::No);
}

#[test]
fn chance_does_not_repeat() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let mut drawn: Vec<u64> = (0..1000).map(|_| rig.io.random()).collect();
    drop(rig);
    drawn.push(Rig::new(&dir.0).io.random());
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 1001);
}
