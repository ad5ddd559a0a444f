//! The coordinator: HTTP API, WebSocket sessions, stores, blobs, and the
//! executor for the kernel module. It links no kernel and does no tensor maths
//! of its own.

pub mod allocation;
pub mod authorities;
pub mod blobs;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod contribute;
pub mod dataset;
pub mod doctor;
pub mod earnings;
pub mod embed;
pub mod files;
pub mod front;
pub mod health;
pub mod http;
pub mod job;
pub mod keys;
pub mod loaders;
pub mod mail;
pub mod model_file;
pub mod network;
pub mod passkey;
pub mod process;
pub mod random;
pub mod receipt;
pub mod referee;
pub mod runtime;
pub mod scopes;
pub mod secret;
pub mod serve;
pub mod settlement;
pub mod signing;
pub mod sites;
pub mod store;
pub mod sweep;
pub mod ticket;
pub mod time;
pub mod token;
pub mod verify;
pub mod view;
pub mod work_token;
pub mod www;
