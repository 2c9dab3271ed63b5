//! Where a message goes: the ways that exchanges choose by, and the walk over exchanges that lead to exchanges.

pub mod bindings;
pub mod hash;
mod headers;
pub mod router;
mod topic;
