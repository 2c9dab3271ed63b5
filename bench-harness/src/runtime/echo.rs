//! Servers that send back what comes, one per runtime, each on the first processor.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::sleep;

use clap::{Args, ValueEnum};
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use glommio::{LocalExecutorBuilder, Placement};
use millstream_engine::buffer::Slice;
use millstream_engine::config::Config;
use millstream_engine::io::ConnId;
use millstream_engine::reactor::app::{App, AppEvent, Outbox};

use crate::engine::node::{ANY_PORT, Node, Spec};
use crate::limits::pinned;
use crate::measure::Problem;
use crate::raw::{self, Readable};

/// What the server runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// The engine's reactor.
    Engine,
    /// glommio.
    Glommio,
    /// A loop over epoll.
    Epoll,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Runtime; 3] = [Runtime::Engine, Runtime::Glommio, Runtime::Epoll];

    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Engine => "engine",
            Runtime::Glommio => "glommio",
            Runtime::Epoll => "epoll",
        }
    }
}

/// What the hidden `millbench echo` is told.
#[derive(Args)]
pub struct Echo {
    /// What it runs on.
    #[arg(long, value_enum)]
    on: Runtime,
    /// A directory for what the engine needs.
    #[arg(long)]
    dir: PathBuf,
}

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

impl Echo {
    /// Serves until it is killed.
    pub fn run(&self) -> Result<(), Problem> {
        match self.on {
            Runtime::Engine => self.engine(),
            Runtime::Glommio => glommio_loop(),
            Runtime::Epoll => epoll_loop(),
        }
    }

    fn engine(&self) -> Result<(), Problem> {
        std::fs::create_dir_all(&self.dir)?;
        let spec = Spec { config: Config::default(), listen: Some(ANY_PORT) };
        let node = Node::start(spec, &self.dir, Box::new(|_| Box::new(EchoApp::default()) as Box<_>))?;
        println!("ready {}", node.address().ok_or("the node does not listen")?);
        while !raw::interrupted() {
            sleep(raw::LOOK);
        }
        node.stop()
    }
}

/// Sends back what comes, as it lies.
#[derive(Default)]
struct EchoApp {
    /// What waits on each connection, and whether something is being sent.
    conns: BTreeMap<ConnId, (Vec<Slice>, bool)>,
}

impl App for EchoApp {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        let conn = match event {
            AppEvent::Accepted { conn, .. } => return drop(self.conns.insert(conn, (Vec::new(), false))),
            AppEvent::Closed(conn, _) => return drop(self.conns.remove(&conn)),
            AppEvent::Received(conn, bytes) => {
                if let Some((waiting, _)) = self.conns.get_mut(&conn) {
                    waiting.push(bytes);
                }
                conn
            }
            AppEvent::SendDone(conn) => {
                if let Some((_, sending)) = self.conns.get_mut(&conn) {
                    *sending = false;
                }
                conn
            }
            _ => return,
        };
        if let Some((waiting, sending)) = self.conns.get_mut(&conn)
            && !*sending
            && !waiting.is_empty()
        {
            *sending = true;
            out.send(conn, std::mem::take(waiting));
        }
    }
}

fn glommio_loop() -> Result<(), Problem> {
    let cpu = *raw::cpus().first().ok_or("no processor is allowed")?;
    let served = LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .spawn(|| async {
            let listener = glommio::net::TcpListener::bind(ANY_PORT).map_err(|error| error.to_string())?;
            println!("ready {}", listener.local_addr().map_err(|error| error.to_string())?);
            loop {
                let mut stream = listener.accept().await.map_err(|error| error.to_string())?;
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                glommio::spawn_local(async move {
                    let mut bytes = vec![0; READ_BYTES];
                    while let Ok(came @ 1..) = stream.read(&mut bytes).await {
                        if stream.write_all(&bytes[..came]).await.is_err() {
                            break;
                        }
                    }
                })
                .detach();
            }
        })
        .map_err(|error| error.to_string())?
        .join();
    served.map_err(|error| error.to_string())?
}

/// The listener's number among the connections.
const LISTENER: usize = 0;

fn epoll_loop() -> Result<(), Problem> {
    pinned(0)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    println!("ready {}", listener.local_addr()?);
    let mut readable = Readable::new()?;
    readable.add(&listener, LISTENER)?;
    let mut conns: BTreeMap<usize, TcpStream> = BTreeMap::new();
    let mut next = LISTENER + 1;
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let numbers: Vec<usize> = readable.wait(-1)?.collect();
        for number in numbers {
            if number == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    readable.add(&stream, next)?;
                    conns.insert(next, stream);
                    next += 1;
                }
                continue;
            }
            let Some(stream) = conns.get_mut(&number) else { continue };
            // One read per look: more is said to be there at the next one.
            let echoed = match stream.read(&mut bytes) {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(came) => stream.write_all(&bytes[..came]),
                Err(error) => Err(error),
            };
            if echoed.is_err() {
                conns.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_engine::io::CloseReason;
    use millstream_engine::reactor::app::Output;
    use millstream_engine::shard::metadata::Metadata;
    use millstream_engine::types::ShardId;

    use super::*;

    #[test]
    fn what_comes_while_something_is_sent_is_sent_after_it() {
        let mut out = Outbox::new(ShardId(0), Arc::new(Metadata::default()));
        let mut app = EchoApp::default();
        let conn = ConnId(1);
        let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        app.step(AppEvent::Accepted { conn, peer: any, local: any, listener: 0 }, &mut out);
        let mut sent = |event| {
            app.step(event, &mut out);
            let sends = out.take().into_iter().filter_map(|output| match output {
                Output::Send(_, slices) => {
                    Some(slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>())
                }
                _ => None,
            });
            sends.collect::<Vec<_>>().concat()
        };
        let came = |bytes: &[u8]| AppEvent::Received(conn, Slice::from(bytes.to_vec()));
        assert_eq!(sent(came(b"one")), b"one");
        assert_eq!(sent(came(b"two")), b"");
        assert_eq!(sent(came(b"three")), b"");
        assert_eq!(sent(AppEvent::SendDone(conn)), b"twothree");
        assert_eq!(sent(AppEvent::Closed(conn, CloseReason::PeerClosed)), b"");
    }
}
