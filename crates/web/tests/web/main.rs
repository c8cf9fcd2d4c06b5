//! The router as a whole, over a real store.

mod api;
mod failures;
mod pages;
mod site;
