//! How a connection begins: who we are, who the client is, how large frames are, which vhost.

use super::{Connection, Stage};
use crate::amqp::census::Holder;
use crate::amqp::codec::{
    ConnectionClose, ConnectionOpen, ConnectionOpenOk, ConnectionStart, ConnectionStartOk, ConnectionTune,
    ConnectionTuneOk, Long, Method, PROTOCOL_HEADER, Short, Table, TableWriter, Value,
};
use crate::amqp::error::{Failure, ReplyCode, Text};
use crate::amqp::link::Capabilities;
use crate::amqp::state::Desk;
use crate::amqp::topology::limits::Limits;
use crate::limits::{AMQP_CHANNELS_PER_CONNECTION_MAX, AMQP_FRAME_BYTES_MAX, AMQP_FRAME_BYTES_MIN};
use millstream_engine::time::Nanos;

/// The mechanisms that a client can log in by.
const MECHANISMS: &[u8] = b"PLAIN AMQPLAIN";
/// What AMQP 0-9 begins with, which differs in nothing that anybody uses.
const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";
/// The user that may come from this machine only.
const LOCAL_USER: &[u8] = b"guest";

/// What is told of the broker.
fn server_properties(product: &str, version: &str) -> TableWriter {
    const CAPABILITIES: [&str; 9] = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ];
    let capabilities =
        CAPABILITIES.iter().fold(TableWriter::default(), |table, name| table.with(name, Value::Bool(true)));
    TableWriter::default()
        .with("capabilities", Value::Table(capabilities.table()))
        .with("cluster_name", Value::String(b"millstream"))
        .with("copyright", Value::String(b"The Millstream authors"))
        .with("information", Value::String(b"Licensed under the Apache License 2.0"))
        .with("platform", Value::String(b"Rust"))
        .with("product", Value::String(product.as_bytes()))
        .with("version", Value::String(version.as_bytes()))
}

/// Name and password.
struct Login<'a> {
    user: &'a [u8],
    password: &'a [u8],
}

/// Reads what a client says to log in.
fn read_login<'a>(mechanism: &[u8], response: &'a [u8]) -> Result<Login<'a>, Failure> {
    match mechanism {
        b"PLAIN" => {
            let mut parts = response.splitn(3, |byte| *byte == 0);
            match (parts.next(), parts.next(), parts.next()) {
                (Some(_), Some(user), Some(password)) => Ok(Login { user, password }),
                _ => Err(Failure::syntax("the response of mechanism PLAIN is malformed")),
            }
        }
        b"AMQPLAIN" => {
            let malformed = || Failure::syntax("the response of mechanism AMQPLAIN is malformed");
            let table = Table::from_raw(response).map_err(|_| malformed())?;
            let field = |name: &[u8]| table.get(name).and_then(Value::string).ok_or_else(malformed);
            Ok(Login { user: field(b"LOGIN")?, password: field(b"PASSWORD")? })
        }
        other => Err(Failure::new(
            ReplyCode::CommandInvalid,
            format!("unknown authentication mechanism '{}'", Text(other)),
        )),
    }
}

/// Checks a number that both sides have to agree on: 0 means no limit, which is more than ours.
fn agreed(name: &str, theirs: u32, min: u32, ours: u32) -> Result<u32, Failure> {
    if theirs != 0 && theirs < min {
        return Err(Failure::not_allowed(format!(
            "negotiated {name} = {theirs} is lower than the minimum allowed value ({min})"
        )));
    }
    if theirs == 0 || theirs > ours {
        return Err(Failure::not_allowed(format!(
            "negotiated {name} = {theirs} is higher than the maximum allowed value ({ours})"
        )));
    }
    Ok(theirs)
}

impl Connection {
    pub(super) fn protocol_header(&mut self, header: [u8; 8], desk: &Desk<'_>) {
        if header != PROTOCOL_HEADER && header != PROTOCOL_HEADER_0_9 {
            tracing::info!(peer = %self.peer, "connection closed: it does not begin with AMQP 0-9-1");
            self.link.raw(&PROTOCOL_HEADER);
            return self.drain(desk);
        }
        let properties = server_properties(&desk.config.amqp.product, &desk.config.amqp.version);
        self.link.method(
            0,
            ConnectionStart {
                version_major: 0,
                version_minor: 9,
                server_properties: properties.table(),
                mechanisms: Long(MECHANISMS),
                locales: Long(b"en_US"),
            },
        );
        self.stage = Stage::StartOk;
    }

    pub(super) fn handshake(&mut self, method: Method<'_>, desk: &mut Desk<'_>) -> Result<(), Failure> {
        match (self.stage, method) {
            (Stage::StartOk, Method::ConnectionStartOk(method)) => self.start_ok(method, desk),
            (Stage::TuneOk, Method::ConnectionTuneOk(method)) => self.tune_ok(method, desk),
            (Stage::Open, Method::ConnectionOpen(method)) => self.open(method, desk),
            (_, Method::ConnectionClose(_)) => {
                self.leave(desk);
                Ok(())
            }
            (_, Method::ConnectionCloseOk(_)) => {
                self.drain(desk);
                Ok(())
            }
            _ => Err(Failure::new(ReplyCode::CommandInvalid, "this is not what was to come next")),
        }
    }

    fn start_ok(&mut self, method: ConnectionStartOk<'_>, desk: &Desk<'_>) -> Result<(), Failure> {
        self.link.capabilities = Capabilities::read(method.client_properties);
        let login = read_login(method.mechanism.0, method.response.0)?;
        let user = desk.state.topology.user(login.user);
        let local = self.peer.ip().to_canonical().is_loopback();
        let away = login.user == LOCAL_USER && !local && desk.config.amqp.guest_is_local;
        if away || !user.is_some_and(|user| user.has_password(login.password)) {
            self.refuse_login(&login, method.mechanism.0, desk);
            return Ok(());
        }
        self.link.user = login.user.to_vec();
        self.link.client_properties = method.client_properties.raw().to_vec();
        self.link.mechanism = method.mechanism.0.to_vec();
        self.stage = Stage::TuneOk;
        self.link.method(
            0,
            ConnectionTune {
                channel_max: AMQP_CHANNELS_PER_CONNECTION_MAX,
                frame_max: AMQP_FRAME_BYTES_MAX as u32,
                heartbeat: desk.config.amqp.heartbeat_s,
            },
        );
        Ok(())
    }

    fn refuse_login(&mut self, login: &Login<'_>, mechanism: &[u8], desk: &Desk<'_>) {
        tracing::warn!(peer = %self.peer, user = %Text(login.user), "login refused");
        if self.link.capabilities.authentication_failure_close {
            let text = format!(
                "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                Text(mechanism)
            );
            let text = Failure::refused(text).reply_text();
            let reply_code = ReplyCode::AccessRefused as u16;
            self.link
                .method(0, ConnectionClose { reply_code, reply_text: Short(&text), class: 0, method: 0 });
        }
        self.drain(desk);
    }

    fn tune_ok(&mut self, method: ConnectionTuneOk, _desk: &Desk<'_>) -> Result<(), Failure> {
        let frame_max =
            agreed("frame_max", method.frame_max, AMQP_FRAME_BYTES_MIN as u32, AMQP_FRAME_BYTES_MAX as u32)?;
        let channel_max = u32::from(method.channel_max);
        agreed("channel_max", channel_max, 1, u32::from(AMQP_CHANNELS_PER_CONNECTION_MAX))?;
        self.link.frame_max = frame_max as usize;
        // As much more as RabbitMQ forgives: the head and the end of a frame.
        self.frames.set_payload_max(frame_max as usize);
        self.channel_max = method.channel_max;
        self.heartbeat = Nanos::from_millis(u64::from(method.heartbeat) * 1000);
        self.stage = Stage::Open;
        Ok(())
    }

    fn open(&mut self, method: ConnectionOpen<'_>, desk: &Desk<'_>) -> Result<(), Failure> {
        let name = if method.vhost.0.is_empty() { b"/" } else { method.vhost.0 };
        let Some(vhost) = desk.vhost(name) else {
            return Err(Failure::not_allowed(format!("vhost {} not found", Text(name))));
        };
        let user = &self.link.user;
        let connections = |holder| desk.state.census.count(&holder).connections;
        if let Some(limit) = vhost.limits.connections()
            && connections(Holder::Vhost(name.to_vec())) >= limit
        {
            return Err(Failure::not_allowed(format!(
                "access to vhost '{}' refused for user '{}': connection limit ({limit}) is reached",
                Text(name),
                Text(user)
            )));
        }
        if let Some(limit) = desk.state.topology.user_limits(user).and_then(Limits::connections)
            && connections(Holder::User(user.clone())) >= limit
        {
            return Err(Failure::not_allowed(format!(
                "connection refused for user '{}': user connection limit ({limit}) is reached",
                Text(user)
            )));
        }
        if vhost.permission(user).is_none() {
            return Err(Failure::not_allowed(format!(
                "access to vhost '{}' refused for user '{}'",
                Text(name),
                Text(&self.link.user)
            )));
        }
        self.link.vhost = name.to_vec();
        self.stage = Stage::Running;
        self.link.method(0, ConnectionOpenOk { known_hosts: Short(b"") });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mechanisms_say_name_and_password() {
        let login = read_login(b"PLAIN", b"as\0me\0secret").ok().unwrap();
        assert_eq!((login.user, login.password), (&b"me"[..], &b"secret"[..]));
        let table = TableWriter::default()
            .with("LOGIN", Value::String(b"me"))
            .with("PASSWORD", Value::String(b"secret"));
        let login = read_login(b"AMQPLAIN", table.table().raw()).ok().unwrap();
        assert_eq!((login.user, login.password), (&b"me"[..], &b"secret"[..]));
        assert_eq!(read_login(b"PLAIN", b"me").err().unwrap().code, ReplyCode::SyntaxError);
        assert_eq!(read_login(b"AMQPLAIN", b"\x05").err().unwrap().code, ReplyCode::SyntaxError);
        assert_eq!(read_login(b"X", b"").err().unwrap().code, ReplyCode::CommandInvalid);
    }

    #[test]
    fn what_is_agreed_on_lies_between_the_limits() {
        assert_eq!(agreed("x", 5, 1, 10), Ok(5));
        for theirs in [0, 11] {
            let text = format!("negotiated x = {theirs} is higher than the maximum allowed value (10)");
            assert_eq!(agreed("x", theirs, 1, 10).unwrap_err().text, text);
        }
        assert!(agreed("x", 1, 2, 10).is_err());
    }
}
