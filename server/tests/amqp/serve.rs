#![allow(clippy::all, clippy::pedantic, clippy::disallowed_methods)]
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use millstream_engine::io::ConnId;
use millstream_engine::time::Nanos;

use crate::node::Node;

enum Ev {
    New(TcpStream),
    Bytes(usize, Vec<u8>),
    Closed(usize),
}

#[test]
fn serve() {
    let Ok(port) = std::env::var("AMQP_STANDIN_PORT") else { return };
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    let (tx, rx) = mpsc::channel();
    let t = tx.clone();
    std::thread::spawn(move || {
        for s in listener.incoming() {
            t.send(Ev::New(s.unwrap())).unwrap();
        }
    });
    let mut node = Node::new();
    let mut streams: BTreeMap<ConnId, (TcpStream, bool)> = BTreeMap::new();
    let mut ids: BTreeMap<usize, ConnId> = BTreeMap::new();
    let mut n = 0;
    let start = Instant::now();
    let mut last = 0u64;
    println!("serving");
    loop {
        let ev = rx.recv_timeout(Duration::from_millis(5));
        let now = start.elapsed().as_millis() as u64;
        if now > last {
            node.advance(Nanos::from_millis(now - last));
            last = now;
        }
        match ev {
            Ok(Ev::New(s)) => {
                n += 1;
                let id = n;
                s.set_nodelay(true).unwrap();
                let conn = node.connect();
                ids.insert(id, conn);
                let mut r = s.try_clone().unwrap();
                streams.insert(conn, (s, false));
                let t = tx.clone();
                std::thread::spawn(move || {
                    let mut buf = vec![0; 65536];
                    loop {
                        match r.read(&mut buf) {
                            Ok(0) | Err(_) => {
                                let _ = t.send(Ev::Closed(id));
                                return;
                            }
                            Ok(k) => {
                                t.send(Ev::Bytes(id, buf[..k].to_vec())).unwrap();
                            }
                        }
                    }
                });
            }
            Ok(Ev::Bytes(id, b)) => {
                let conn = ids[&id];
                if !node.socket(conn).closed {
                    node.receive(conn, &b);
                }
            }
            Ok(Ev::Closed(id)) => {
                let conn = ids[&id];
                if !node.socket(conn).closed {
                    node.disconnect(conn);
                }
            }
            Err(_) => {}
        }
        node.engine.log.clear();
        for (conn, (s, done)) in &mut streams {
            let socket = node.sockets.get_mut(conn).unwrap();
            if !socket.sent.is_empty() {
                let _ = s.write_all(&std::mem::take(&mut socket.sent));
            }
            if socket.closed && !*done {
                *done = true;
                let _ = s.shutdown(std::net::Shutdown::Both);
            }
        }
    }
}
