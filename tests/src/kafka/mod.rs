//! The production broker in a simulated world, and the clients that connect to it: [`client`] says what a sound client
//! says, [`hostile`] what no client should, and [`story`] puts them together by seed and judges what comes of it.

pub mod client;
pub mod hostile;
pub mod story;
