//! A conversation: its messages in order, what is forgotten when the context is full, and its file.

use crate::base::{Error, Result, replace_with};
use crate::text::{Message, Role};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Messages in order: perhaps a system message, then turns of a user's message and its answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    messages: Vec<Message>,
}

/// A saved chat. Messages are in OpenAI's shape.
#[derive(Serialize, Deserialize)]
struct Saved {
    messages: Vec<Message>,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Conversation { messages }
    }
}

impl Conversation {
    /// All messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The system prompt.
    pub fn system(&self) -> Option<String> {
        let first = self.messages.first().filter(|m| m.is_system())?;
        first.content.as_ref()?.as_text()
    }

    /// Sets the system prompt. An empty one is one too: templates leave out their own.
    pub fn set_system(&mut self, text: impl Into<String>) {
        let system = Message::system(text);
        match self.messages.first_mut().filter(|m| m.is_system()) {
            Some(first) => *first = system,
            None => self.messages.insert(0, system),
        }
    }

    /// Adds a user's message.
    pub fn ask(&mut self, text: impl Into<String>) {
        self.messages.push(Message::user(text));
    }

    /// Adds the model's reply, and its reasoning before it.
    pub fn reply(&mut self, text: impl Into<String>, reasoning: String) {
        let reasoning = (!reasoning.is_empty()).then_some(reasoning);
        self.messages.push(Message { reasoning_content: reasoning, ..Message::assistant(text) });
    }

    /// Takes the last reply out, so that its question waits for another. `None` if there is no question.
    pub fn reopen(&mut self) -> Option<Message> {
        let at = self.messages.iter().rposition(|m| m.role == Role::User)?;
        self.messages.drain(at + 1..).next_back()
    }

    /// Forgets the oldest turn, but never the system prompt nor the last question. Whether there was one.
    pub fn forget_oldest(&mut self) -> bool {
        Message::forget_oldest(&mut self.messages)
    }

    /// Forgets everything but the system prompt.
    pub fn clear(&mut self) {
        self.messages.retain(Message::is_system);
    }

    /// Saves the chat; a file of that name is replaced when the new one is whole.
    pub fn save(&self, path: &Path) -> Result<()> {
        let saved = Saved { messages: self.messages.clone() };
        let text = serde_json::to_string_pretty(&saved).expect("messages are plain data");
        replace_with(path, |e| e, |out| writeln!(out, "{text}")).map_err(|e| {
            Error::io("can't save the chat", e).at(path.display()).help("check the folder and the room on the disk")
        })
    }

    /// A conversation from the text of a file that [`save`](Self::save) wrote.
    pub fn from_json(text: &str) -> Result<Conversation> {
        let saved: Saved = serde_json::from_str(text)
            .map_err(|e| Error::format("this is not a saved chat").because(e).help("name a file that /save wrote"))?;
        Ok(Conversation { messages: saved.messages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn conversation() -> Conversation {
        let mut conversation = Conversation::default();
        conversation.set_system("S");
        for turn in ["1", "2", "3"] {
            conversation.ask(format!("q{turn}"));
            conversation.reply(format!("a{turn}"), String::new());
        }
        conversation
    }

    fn said(conversation: &Conversation) -> String {
        let text = |m: &Message| m.content.as_ref().and_then(|c| c.as_text()).unwrap_or_default();
        conversation.messages().iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_oldest_turns_are_forgotten_but_not_the_system_prompt_nor_the_last_question() {
        let mut conversation = conversation();
        conversation.ask("q4");
        assert!(conversation.forget_oldest());
        assert_eq!(said(&conversation), "S q2 a2 q3 a3 q4");
        assert!(conversation.forget_oldest() && conversation.forget_oldest());
        assert_eq!(said(&conversation), "S q4");
        assert!(!conversation.forget_oldest());
        assert_eq!(said(&conversation), "S q4");
        assert!(!Conversation::default().forget_oldest());
    }

    #[test]
    fn a_question_is_reopened() {
        let mut conversation = conversation();
        assert_eq!(conversation.reopen(), Some(Message::assistant("a3")));
        assert_eq!(said(&conversation), "S q1 a1 q2 a2 q3");
        conversation.clear();
        assert_eq!((said(&conversation), conversation.reopen()), ("S".to_string(), None));
        conversation.set_system("T");
        assert_eq!((conversation.system().as_deref(), conversation.messages().len()), (Some("T"), 1));
    }

    #[test]
    fn a_chat_is_saved_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.json");
        let mut conversation = conversation();
        conversation.ask("why?");
        conversation.reply("so", "hm".into());
        conversation.save(&path).unwrap();
        assert_eq!(Conversation::from_json(&fs::read_to_string(&path).unwrap()).unwrap(), conversation);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let refused = Conversation::from_json("{\"messages\": 1}").unwrap_err();
        assert!(refused.to_string().contains("not a saved chat"));
        assert!(conversation.save(&dir.path().join("none/chat.json")).unwrap_err().to_string().contains("can't save"));
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("x"), "x").unwrap();
        assert!(conversation.save(&folder).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
    }
}
