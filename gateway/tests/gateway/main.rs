//! The gateway against a store in memory, over real sockets: one binary, so that it is linked once.

mod auth;
mod client;
mod contract;
mod corpus;
mod fake;
mod http1;
mod http2;
mod limits;
mod openapi;
mod setup;
mod watch;
