//! Messages and signals as values: what is taken and refused, what the model reads, what is stored, echoed and shown.

#[path = "messages/accept.rs"]
mod accept;
#[path = "messages/chaos.rs"]
mod chaos;
#[path = "messages/forms.rs"]
mod forms;
#[path = "messages/render.rs"]
mod render;
#[path = "messages/rows.rs"]
mod rows;
#[path = "messages/support.rs"]
mod support;
