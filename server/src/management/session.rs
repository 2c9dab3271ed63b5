//! Who asks, and what they may see and do. RabbitMQ's tags decide: `management` lets a user see and use what AMQP would, `policymaker`
//! set policies there, `monitoring` see everything, and `administrator` do everything.

use std::net::SocketAddr;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::problem::Problem;
use crate::amqp::codec::{self, Table};
use crate::amqp::error::Text;
use crate::amqp::topology::users::Access;
use crate::amqp::topology::{Topology, Vhost};

/// The user that may come from this machine only.
const LOCAL_USER: &[u8] = b"guest";

/// A user who has logged in.
#[derive(Clone, Debug)]
pub struct Session {
    /// The user's name.
    pub user: Vec<u8>,
    /// The user's tags.
    pub tags: Vec<String>,
}

/// A tag that lets a user do something here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Anybody who may use this at all.
    Management,
    /// Who may set policies.
    PolicyMaker,
    /// Who may see everything.
    Monitoring,
    /// Who may do everything.
    Administrator,
}

/// The name and the password of a request.
fn credentials(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let plain = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    let (user, password) = plain.split_at(colon);
    Some((user.to_vec(), password.strip_prefix(b":")?.to_vec()))
}

impl Session {
    /// Logs a user in.
    pub fn begin(
        headers: &HeaderMap,
        peer: SocketAddr,
        guest_is_local: bool,
        topology: &Topology,
    ) -> Result<Session, Problem> {
        let (name, password) = credentials(headers).ok_or_else(Problem::unknown_user)?;
        let away = name == LOCAL_USER && guest_is_local && !peer.ip().to_canonical().is_loopback();
        let user = topology.user(&name).filter(|user| !away && user.has_password(&password));
        let Some(user) = user else {
            tracing::warn!(%peer, user = %Text(&name), "login refused over HTTP");
            return Err(Problem::unknown_user());
        };
        let tags = user.value.tags.split(|byte| *byte == b',').filter(|tag| !tag.is_empty());
        let tags = tags.map(|tag| String::from_utf8_lossy(tag).into_owned()).collect();
        let session = Session { user: name, tags };
        if session.is(Role::Management) { Ok(session) } else { Err(Problem::unknown_user()) }
    }

    fn has(&self, tags: &[&str]) -> bool {
        self.tags.iter().any(|tag| tags.contains(&&**tag))
    }

    /// Whether the user's tags make that of them.
    pub fn is(&self, role: Role) -> bool {
        match role {
            Role::Management => self.has(&["management", "policymaker", "monitoring", "administrator"]),
            Role::PolicyMaker => self.has(&["policymaker", "administrator"]),
            Role::Monitoring => self.has(&["monitoring", "administrator"]),
            Role::Administrator => self.has(&["administrator"]),
        }
    }

    /// Refuses whoever is not that.
    pub fn needs(&self, role: Role) -> Result<(), Problem> {
        if self.is(role) {
            return Ok(());
        }
        Err(Problem::refused_user(match role {
            Role::Management => "User can only log in via management",
            Role::PolicyMaker => "User not authorised to access object",
            Role::Monitoring => "Not monitor user",
            Role::Administrator => "Not administrator user",
        }))
    }

    /// Whether the user may see what is in a vhost.
    pub fn sees(&self, vhost: &Vhost) -> bool {
        self.is(Role::Monitoring) || vhost.permission(&self.user).is_some()
    }

    /// A vhost, if the user may see what is in it.
    pub fn view<'t>(&self, topology: &'t Topology, vhost: &[u8]) -> Result<&'t Vhost, Problem> {
        let vhost = topology.vhost(vhost).ok_or_else(|| Problem::not_found("vhost_not_found"))?;
        if self.sees(vhost) { Ok(vhost) } else { Err(no_access()) }
    }

    /// A vhost, if the user may work in it.
    pub fn enter<'t>(&self, topology: &'t Topology, vhost: &[u8]) -> Result<&'t Vhost, Problem> {
        let vhost = topology.vhost(vhost).ok_or_else(|| Problem::not_found("vhost_not_found"))?;
        if vhost.permission(&self.user).is_some() { Ok(vhost) } else { Err(no_access()) }
    }

    /// Whether the user may do that with something of a vhost, as AMQP would have it; `what` and `name` say with what.
    pub fn check(&self, vhost: &Vhost, access: Access, what: &str, name: &[u8]) -> Result<(), Problem> {
        if vhost.permission(&self.user).is_some_and(|permission| permission.allows(access, name)) {
            return Ok(());
        }
        Err(Problem::refused_user(format!(
            "{} access to {what} '{}' in vhost '{}' refused for user '{}'",
            access.name(),
            Text(name),
            Text(&vhost.name),
            Text(&self.user)
        )))
    }

    /// Whether the user may make something whose argument `key` says to which exchange its messages go on: as with AMQP, whoever
    /// reads from the one and writes to the other may.
    pub fn check_passing_on(
        &self,
        vhost: &Vhost,
        (what, made): (&str, &[u8]),
        arguments: &[u8],
        key: &[u8],
    ) -> Result<(), Problem> {
        let arguments = Table::from_raw(arguments).unwrap_or_default();
        if let Some(codec::Value::String(exchange)) = arguments.get(key) {
            self.check(vhost, Access::Read, what, made)?;
            self.check(vhost, Access::Write, "exchange", exchange)?;
        }
        Ok(())
    }

    /// Whether the user may publish by that key to an exchange of type topic, or bind to it.
    pub fn check_topic(
        &self,
        vhost: &Vhost,
        access: Access,
        exchange: &[u8],
        key: &[u8],
    ) -> Result<(), Problem> {
        let permission = vhost.permission(&self.user);
        if permission.is_some_and(|permission| permission.allows_key(access, exchange, key)) {
            return Ok(());
        }
        Err(Problem::refused_user(format!(
            "{} access to topic '{}' in exchange '{}' in vhost '{}' refused for user '{}'",
            access.name(),
            Text(key),
            Text(exchange),
            Text(&vhost.name),
            Text(&self.user)
        )))
    }
}

fn no_access() -> Problem {
    Problem::refused_user("User not authorised to access virtual host")
}
