//! Floor 10: conversations with a model: messages in, a reply out piece by piece, within what the context holds. What the terminal and
//! the page have in common.

mod conversation;
mod reply;
mod response;

pub use conversation::Conversation;
pub use reply::{Chat, ChatOptions, Reply, WhenFull};
pub use response::{Delta, ResponseStream};
