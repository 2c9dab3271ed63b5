//! The production broker in a simulated world, and the clients that connect to it: [`client`] says what a sound client
//! says, [`hostile`] what no client should, [`group`] is a consumer group, and [`story`] puts them together by seed and judges what comes of it.

pub mod client;
pub mod group;
pub mod hostile;
pub mod story;
