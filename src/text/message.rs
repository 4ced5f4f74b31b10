//! Chat messages in OpenAI's shape: what a conversation is made of, before a template turns it into a prompt.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Who speaks.
///
/// Templates build control tokens from roles (`<|user|>`), so the known ones count as template text. Any other word is
/// user text: a token built from it stays plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The operator's instructions.
    System,
    /// The same under its newer name.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// The result of a function call, the older form.
    Function,
    /// A role that only some templates know.
    Other(String),
}

const ROLES: [(Role, &str); 6] = [
    (Role::System, "system"),
    (Role::Developer, "developer"),
    (Role::User, "user"),
    (Role::Assistant, "assistant"),
    (Role::Tool, "tool"),
    (Role::Function, "function"),
];

impl Role {
    /// The role's word.
    pub fn as_str(&self) -> &str {
        match self {
            Role::Other(word) => word,
            known => ROLES.iter().find(|(role, _)| role == known).map_or("", |(_, word)| word),
        }
    }
}

impl From<&str> for Role {
    fn from(word: &str) -> Role {
        let known = ROLES.into_iter().find(|(_, known)| *known == word);
        known.map_or_else(|| Role::Other(word.to_string()), |(role, _)| role)
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        String::deserialize(deserializer).map(|word| Role::from(word.as_str()))
    }
}

/// A part of a message: `{"type": "text", "text": "…"}`, or another kind with its own fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// `text`, `image_url`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a text part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whatever else the part says.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Parts, of which some may not be text.
    Parts(Vec<Part>),
}

impl Content {
    /// The text: that of the parts one to a line; none if a part is not text.
    pub fn as_text(&self) -> Option<String> {
        match self {
            Content::Text(text) => Some(text.clone()),
            Content::Parts(parts) => {
                let texts: Option<Vec<&str>> =
                    parts.iter().map(|p| p.text.as_deref().filter(|_| p.kind == "text")).collect();
                texts.map(|texts| texts.join("\n"))
            }
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Content {
        Content::Text(text.to_string())
    }
}

/// The function an assistant wants called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Its name.
    pub name: String,
    /// Its arguments: an object, or, as OpenAI sends it, an object written as a string.
    #[serde(default)]
    pub arguments: Value,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Which result belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Always `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// What to call.
    pub function: FunctionCall,
}

fn function() -> String {
    "function".to_string()
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; none if an assistant only calls tools.
    #[serde(default)]
    pub content: Option<Content>,
    /// What an assistant thought before it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools an assistant calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Which call a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's or the tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A plain message.
    pub fn new(role: Role, text: impl Into<String>) -> Message {
        Message {
            role,
            content: Some(Content::Text(text.into())),
            reasoning_content: None,
            tool_calls: None,
            tool_call_id: None,
            name: None,
        }
    }

    /// A system message.
    pub fn system(text: impl Into<String>) -> Message {
        Message::new(Role::System, text)
    }

    /// A user's message.
    pub fn user(text: impl Into<String>) -> Message {
        Message::new(Role::User, text)
    }

    /// An assistant's message.
    pub fn assistant(text: impl Into<String>) -> Message {
        Message::new(Role::Assistant, text)
    }

    /// Whether it is a system prompt, by whatever name.
    pub fn is_system(&self) -> bool {
        matches!(self.role, Role::System | Role::Developer)
    }

    /// Takes the oldest turn out of a conversation, but never its system prompt nor the last question. Whether there was one.
    pub fn forget_oldest(messages: &mut Vec<Message>) -> bool {
        let from = messages.iter().take_while(|m| m.is_system()).count();
        let next = messages.iter().skip(from + 1).position(|m| m.role == Role::User);
        let Some(next) = next else { return false };
        messages.drain(from..from + 1 + next);
        true
    }

    /// The conversation with its leading system message put before the first user message, for models that take none
    /// ([`Capabilities::system`](crate::text::Capabilities)). Unchanged where there is no text to move, or no user.
    pub fn fold_system(messages: &[Message]) -> Vec<Message> {
        let Some((first, rest)) = messages.split_first() else { return Vec::new() };
        let system = first.content.as_ref().and_then(Content::as_text).filter(|_| first.is_system());
        let user = rest.iter().position(|m| m.role == Role::User);
        let (Some(system), Some(at)) = (system, user) else { return messages.to_vec() };
        let mut folded = rest.to_vec();
        folded[at].content = match folded[at].content.take() {
            Some(Content::Parts(mut parts)) => {
                parts.insert(0, Part { kind: "text".into(), text: Some(system), rest: Map::new() });
                Some(Content::Parts(parts))
            }
            Some(Content::Text(text)) if !system.is_empty() => Some(Content::Text(format!("{system}\n\n{text}"))),
            other => other,
        };
        folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_shape_there_and_back() {
        let json = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]}"#;
        let message: Message = serde_json::from_str(json).unwrap();
        assert_eq!(message.role, Role::Assistant);
        assert_eq!(message.tool_calls.as_ref().unwrap()[0].function.name, "f");
        assert_eq!(serde_json::to_string(&message).unwrap(), json);

        let json =
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}"#;
        let message: Message = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), json);
        assert_eq!(message.content.unwrap().as_text(), None);

        let odd: Message = serde_json::from_str(r#"{"role":"observation","content":"x"}"#).unwrap();
        assert_eq!(odd.role, Role::Other("observation".into()));
        assert!(serde_json::from_str::<Message>(r#"{"content":"x"}"#).is_err());
    }

    #[test]
    fn a_system_message_folds_into_the_first_user_message() {
        let folded = Message::fold_system(&[Message::system("Be brief."), Message::user("Hi"), Message::user("?")]);
        assert_eq!(folded, [Message::user("Be brief.\n\nHi"), Message::user("?")]);
        let none = [Message::user("Hi")];
        assert_eq!(Message::fold_system(&none), none);
        let alone = [Message::system("Be brief.")];
        assert_eq!(Message::fold_system(&alone), alone);
    }
}
