//! The checks that RabbitMQ's tools and load balancers ask for, answered from what `/health` knows.

use serde_json::{Value, json};

use super::api::{Answer, Asked};
use super::problem::Problem;
use crate::admin::State;

/// A vhost that can be looked at is served.
pub fn aliveness(asked: Asked<'_>, vhost: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| asked.session.enter(topology, vhost).map(|_| ()))?;
    Ok(Answer::Value(json!({"status": "ok"})))
}

/// One of the checks; without a name, whether the node is well.
pub fn check(asked: Asked<'_>, name: &[Vec<u8>], state: &State) -> Result<Answer, Problem> {
    let name: Vec<&[u8]> = name.iter().map(|part| &**part).collect();
    let well = Answer::Value(json!({"status": "ok"}));
    match name[..] {
        [] | [b"alarms" | b"local-alarms" | b"is-in-service" | b"ready-to-serve-clients"] => {
            let verdict = state.health().ready();
            let reason: Value = serde_json::from_str(&verdict.body).unwrap_or(Value::Null);
            let failed = || json!({"status": "failed", "reason": reason["reasons"]});
            Ok(if verdict.good { well } else { Answer::Unwell(failed()) })
        }
        // There are no certificates that could end, and nothing that others would have to agree to.
        [b"virtual-hosts" | b"below-node-connection-limit" | b"reached-target-cluster-size"]
        | [b"metadata-store" | b"quorum-queues-without-elected-leaders", ..]
        | [b"certificate-expiration", _, _] => Ok(well),
        [b"node-is-quorum-critical" | b"node-is-mirror-sync-critical"] => {
            Ok(Answer::Value(json!({"status": "ok", "reason": "single node cluster"})))
        }
        [b"port-listener", port] => {
            let wanted = std::str::from_utf8(port).ok().and_then(|port| port.parse::<u16>().ok());
            let wanted = wanted.ok_or_else(|| Problem::bad("a port is a number"))?;
            let ports: Vec<u16> =
                asked.api.about.listeners.iter().map(|(_, address)| address.port()).collect();
            Ok(if ports.contains(&wanted) {
                Answer::Value(json!({"status": "ok", "port": wanted}))
            } else {
                let reason = "No active listener";
                Answer::Unwell(
                    json!({"status": "failed", "reason": reason, "missing": wanted, "ports": ports}),
                )
            })
        }
        [b"protocol-listener", protocol] => {
            let wanted = String::from_utf8_lossy(protocol).into_owned();
            let asked_for = match &*wanted {
                "amqp091" | "amqp0.9.1" | "amqp" => "amqp",
                other => other,
            };
            let protocols: Vec<&str> =
                asked.api.about.listeners.iter().map(|(protocol, _)| *protocol).collect();
            Ok(if protocols.contains(&asked_for) {
                Answer::Value(json!({"status": "ok", "protocol": wanted}))
            } else {
                let reason = "No active listener";
                Answer::Unwell(
                    json!({"status": "failed", "reason": reason, "missing": wanted, "protocols": protocols}),
                )
            })
        }
        _ => Err(Problem::no_object()),
    }
}
