//! The real process from outside: it is started, talked to over TCP, killed, stopped and refused.

#![allow(clippy::unwrap_used, reason = "a test may end where it is surprised, in its helpers too")]
#![allow(clippy::disallowed_methods, reason = "what a process leaves behind is looked at in real files")]

mod admin;
mod api;
mod broker;
mod client;
mod definitions;
mod exposition;
mod groups;
mod hostile;
mod http;
mod inspection;
mod kill;
mod management;
mod refusals;
mod stop;
