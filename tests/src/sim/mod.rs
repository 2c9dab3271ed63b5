//! A node in a simulated world: what drives it, what it is asked, and what judges its answers.
//!
//! [`node`] runs the production reactors over a simulated machine; [`workload`] asks them at random; [`model`] remembers
//! every promise that an answer makes and says when one is broken; [`audit`] reads everything back after a restart;
//! [`between`] does to a node what may happen while it is off;
//! [`canary`] breaks the outside world in ways that the model must notice; [`scenario`] puts them together by seed, and [`points`]
//! crashes one small story everywhere.

mod answers;
pub mod audit;
pub mod between;
pub mod canary;
mod changes;
pub mod model;
pub mod node;
pub mod partition;
pub mod points;
pub mod scenario;
pub mod workload;
