//! The production broker in a simulated world, and the clients that connect to it: [`client`] says what a sound client
//! says, [`hostile`] what no client should, [`group`] is a consumer group, and [`side`] has the first two at work and judges what they are told.

pub mod client;
pub mod group;
pub mod hostile;
pub mod side;
