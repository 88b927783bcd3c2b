//! Documents from outside: what a client sends, what is stored, what the client gets back.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod api;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod large;
#[cfg(test)]
mod node;
#[cfg(test)]
mod playwright;
#[cfg(test)]
mod random;
#[cfg(test)]
mod state;
