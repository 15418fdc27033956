//! Processors of one hook, whose body is a function.

use aldis::Failure;
use aldis::agent::{
    ErrorHook, Hook, Hooked, InputHook, OutputHook, Processor, RequestHook, ResponseHook, StreamHook, ToolResultHook,
};

macro_rules! processors {
    ($($name:ident $hook:ident $method:ident $context:ident)*) => {$(
        pub struct $name<F>(F);

        impl<F: Fn(&mut $context<'_>) + Send + Sync> $name<F> {
            pub fn new(body: F) -> Self {
                Self(body)
            }
        }

        impl<F: Fn(&mut $context<'_>) + Send + Sync> Processor for $name<F> {
            fn id(&self) -> &str {
                stringify!($method)
            }

            fn hooks(&self) -> &[Hook] {
                &[Hook::$hook]
            }

            fn $method<'h>(&'h self, mut hook: $context<'h>) -> Hooked<'h> {
                Box::pin(async move {
                    (self.0)(&mut hook);
                    Ok::<_, Failure>(())
                })
            }
        }
    )*};
}

processors! {
    First Input process_input InputHook
    Before InputStep process_input_step InputHook
    Going LlmRequest process_llm_request RequestHook
    Heard LlmResponse process_llm_response ResponseHook
    Passing OutputStream process_output_stream StreamHook
    After OutputStep process_output_step OutputHook
    Ending OutputResult process_output_result OutputHook
    Returned ToolResult process_tool_result ToolResultHook
    Failing ApiError process_api_error ErrorHook
}

/// A processor one of whose hooks before a call of the model fails for good.
pub struct Broken(pub [Hook; 1]);

impl Broken {
    fn fails<'h>() -> Hooked<'h> {
        Box::pin(async { Err(Failure::new("it is broken").not_retryable()) })
    }
}

impl Processor for Broken {
    fn id(&self) -> &str {
        "broken"
    }

    fn hooks(&self) -> &[Hook] {
        &self.0
    }

    fn process_input<'h>(&'h self, _: InputHook<'h>) -> Hooked<'h> {
        Self::fails()
    }

    fn process_input_step<'h>(&'h self, _: InputHook<'h>) -> Hooked<'h> {
        Self::fails()
    }

    fn process_llm_request<'h>(&'h self, _: RequestHook<'h>) -> Hooked<'h> {
        Self::fails()
    }
}
