//! What has become durable is told to the peer that waits for it before the rest of the turn, which may take as long as waking
//! the peer does. Here the peer is the test itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::Blocking;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::World;
use millstream_engine::reactor::app::{App, AppEvent, Outbox};
use millstream_engine::reactor::boot::boot;
use millstream_engine::reactor::reshard::reshard;
use millstream_engine::reactor::{Answer, Ask, Reactor, Shared};
use millstream_engine::shard::Shard;
use millstream_engine::shard::controller::Controller;
use millstream_engine::shard::mailbox::{Mail, Post, mesh, slots};
use millstream_engine::shard::request::{AppToken, Reply, Request};
use millstream_engine::types::{Durability, PartitionId, ShardId};
use millstream_tests::several::config;
use millstream_tests::sim::canary::{Act, Cage, Canary, CanaryIo};

const SERVER: ShardId = ShardId(0);
const PEER: ShardId = ShardId(1);
const PATIENCE: u32 = 10_000;
const SOUND: &str = "the directory is new";
const TWO: &str = "there are two shards";

struct Nobody;

impl App for Nobody {
    fn step(&mut self, _: AppEvent, _: &mut Outbox) {}
}

struct Stage {
    reactor: Reactor<CanaryIo, Nobody>,
    post: Post<Ask, Answer>,
    acts: Rc<RefCell<Vec<Act>>>,
}

impl Stage {
    fn new() -> Stage {
        let world = World::new(1, Faults::default());
        let (config, pool) = (Arc::new(config(2)), Pool::new(64 << 20));
        let acts = Rc::new(RefCell::new(Vec::new()));
        let mut cage = Cage::new(Canary::None);
        cage.acts = Some(Rc::clone(&acts));
        let mut io = CanaryIo::new(world.io(SERVER), cage, Rc::new(Cell::new(false)));
        let found = boot(&mut Blocking::new(&mut io, pool.clone()), &config).expect(SOUND);
        let boot = reshard(&mut io, found, &config, &pool).expect(SOUND);
        let metadata = Arc::clone(&boot.metadata);
        let (shard, _) =
            Shard::recover(&mut io, SERVER, &boot.manifest, Arc::clone(&config), Arc::clone(&metadata))
                .expect(SOUND);
        let mut disk = Blocking::new(&mut io, pool.clone());
        let controller = Controller::start(&mut disk, metadata, &config, pool.clone()).expect(SOUND);
        let mut posts = mesh(2, slots(2));
        let (post, own) = (posts.pop().expect(TWO), posts.pop().expect(TWO));
        let reactor = Reactor::new(io, shard, Some(controller), Nobody, own, Arc::new(Shared::new(2)));
        Stage { reactor, post, acts }
    }

    fn ask(&mut self, request: Request) {
        assert!(self.post.send(SERVER, Ask::Engine(AppToken(0), request)).is_ok(), "there is room");
        self.post.publish(|_| {});
    }

    /// Takes what has come, and falls asleep.
    fn replies(&mut self) -> Vec<Reply> {
        self.post.awake();
        let mut replies = Vec::new();
        let mut mail = Vec::new();
        self.post.take(100, &mut mail);
        for mail in mail {
            match mail {
                Mail::Request(from, Ask::Apply(_)) => self.post.reply(from, Answer::Applied),
                Mail::Request(from, Ask::Answered(_, reply)) => {
                    self.post.reply(from, Answer::Noted);
                    replies.push(reply);
                }
                Mail::Reply(_, Answer::Engine(_, reply)) => replies.push(reply),
                Mail::Request(from, _) => self.post.reply(from, Answer::Noted),
                Mail::Reply(..) => {}
            }
        }
        self.post.publish(|_| {});
        let _ = self.post.announce_sleep();
        replies
    }

    fn wait(&mut self) -> Reply {
        for _ in 0..PATIENCE {
            self.reactor.turn(true);
            if let Some(reply) = self.replies().pop() {
                return reply;
            }
        }
        panic!("no answer came");
    }
}

#[test]
fn a_peer_that_waits_for_what_is_durable_is_rung_at_once() {
    let mut stage = Stage::new();
    stage.ask(Request::CreateTopic { name: "t".to_owned(), partitions: Some(2), settings: Vec::new() });
    let Reply::TopicCreated(topic) = stage.wait() else { panic!("it can be made") };
    let metadata = Arc::clone(stage.reactor.shard().metadata());
    let (partition, _): (PartitionId, _) = metadata.partitions_in(topic, SERVER).next().expect(TWO);
    let batch = Slice::from(BatchBuilder::new(0).push(None, Some(b"x")).build());
    stage.ask(Request::Append { partition, batch, durability: Durability::Durable });
    stage.acts.borrow_mut().clear();
    assert!(matches!(stage.wait(), Reply::Appended(_)));
    // The next submission would have been that of the next turn.
    let acts = stage.acts.borrow();
    let behind = acts.iter().skip_while(|act| **act != Act::Durable);
    assert!(behind.take(3).eq(&[Act::Durable, Act::Rings(PEER), Act::Submits]), "{acts:?}");
}
