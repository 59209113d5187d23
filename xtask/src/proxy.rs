//! A TCP proxy that breaks the network on demand.
