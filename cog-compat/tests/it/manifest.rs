//! Reading a `cog.yaml` into a manifest.
use insta::assert_snapshot;
use pinion_cog_compat::manifest::{Amount, Backend, DType, InputName, Scheme};
use pinion_cog_compat::{Diagnostic, Manifest, Severity};

fn faults(text: &str) -> String {
    let faults = Manifest::parse(text).expect_err("refused");
    faults.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n")
}

fn notes(text: &str) -> String {
    let manifest = Manifest::parse(text).unwrap_or_else(|faults| panic!("{faults:#?}"));
    manifest.notes.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n")
}

const FULL: &str = r#"
run: run.py:Runner
train: train.py:train
model: registry.example.com/acme/m
build:
  python_version: 3.10
  gpu: on
  cuda: 12.4
  cudnn: 9
  python_requirements: requirements.txt
  system_packages: [a, 1, true]
  run:
    - echo 1
    - command: pip install x
      mounts: [{type: secret, id: token, target: /run/token}]
  pre_install: [echo 0]
  sdk_version: 0.17.0
concurrency: {max: 4, default_target: 2}
environment: [A=1, B=x=y, C=]
weights:
  - name: llm
    target: /src/weights
    source:
      - uri: hf://org/model@main
        include: ["*.safetensors"]
        exclude: ["onnx/*"]
      - uri: ./extra
observability:
  config: tracing.py
  traces: {enabled: true, sampler: ratio, sampler_arg: 0.5}
pinion:
  backend: native
  dtype: q8_0
  max_model_len: 8192
  max_num_seqs: 64
  speculative_tokens: 4
  inputs: {max_tokens: [max_new_tokens, max_length], prompt: text}
  prompt_template: "{prompt}"
  adapters: [{name: support-bot, source: ./lora}]
  price: {input: "0.10", cached_input: 0.02, output: 1, unit: 1M}
"#;

#[test]
fn every_field_is_read() {
    let manifest = Manifest::parse(FULL).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(manifest.notes, []);
    let build = &manifest.build;
    assert_eq!(
        (build.python_version.as_deref(), build.gpu, build.cuda.as_deref()),
        (Some("3.10"), true, Some("12.4"))
    );
    assert_eq!(build.system_packages, ["a", "1", "true"]);
    assert_eq!(
        (build.run[0].command.as_str(), build.run[1].mounts[0].target.as_str()),
        ("echo 1", "/run/token")
    );
    assert_eq!(build.sdk_version.as_deref(), Some("0.17.0"));
    let concurrency = manifest.concurrency.as_ref().unwrap();
    assert_eq!((concurrency.max, concurrency.default_target), (Some(4), Some(2)));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(manifest.environment, [pair("A", "1"), pair("B", "x=y"), pair("C", "")]);
    let weights = &manifest.weights[0];
    assert_eq!((weights.name.as_str(), weights.target.as_str()), ("llm", "/src/weights"));
    assert_eq!(weights.sources[0].scheme(), Some((Scheme::Hub, "org/model@main")));
    assert_eq!(weights.sources[0].exclude, ["onnx/*"]);
    assert_eq!(weights.sources[1].scheme(), Some((Scheme::File, "./extra")));
    let traces = manifest.observability.as_ref().unwrap().traces.as_ref().unwrap();
    assert_eq!((traces.enabled, traces.sampler_arg.as_deref()), (true, Some("0.5")));
}

#[test]
fn the_block_of_pinion_is_typed() {
    let pinion = Manifest::parse(FULL).unwrap().pinion;
    assert_eq!((pinion.backend, pinion.dtype), (Some(Backend::Native), Some(DType::Q8_0)));
    assert_eq!((pinion.max_model_len, pinion.max_num_seqs), (Some(8192), Some(64)));
    assert_eq!(pinion.speculative_tokens, Some(4));
    let aliases: Vec<&str> = pinion.inputs.of(InputName::MaxTokens).collect();
    assert_eq!(aliases, ["max_new_tokens", "max_length"]);
    assert_eq!(pinion.inputs.of(InputName::Prompt).collect::<Vec<_>>(), ["text"]);
    let price = pinion.price.unwrap();
    assert_eq!(price.per_tokens, 1_000_000);
    assert_eq!(price.input, Some(Amount { nanos: 100_000_000 }));
    let printed: Vec<String> = [price.input, price.cached_input, price.output]
        .iter()
        .flatten()
        .map(Amount::to_string)
        .collect();
    assert_eq!(printed, ["0.10", "0.02", "1.00"]);
}

#[test]
fn every_dtype_and_backend_is_found_by_the_name_it_prints() {
    assert!(
        DType::NAMES
            .iter()
            .all(|(dtype, name)| DType::from_name(name) == Some(*dtype) && dtype.name() == *name)
    );
    assert!(Backend::NAMES.iter().all(|(backend, name)| backend.name() == *name));
    assert!(InputName::NAMES.iter().all(|(input, name)| input.name() == *name));
}

#[test]
fn all_faults_come_at_once_with_their_places() {
    let text = r"
run: [a]
build:
  gpu: 'true'
  run: x
  run: y
concurrency: {max: many}
environment: [A=1, A=2, 1B=3, C]
weights:
  - {name: LLM, target: weights, source: {uri: 's3://x'}}
  - {name: b, target: /w, source: []}
  - {name: b, target: /w/sub, source: {uri: hf://x, exclude: ['!a']}}
pinion:
  backend: nativ
  dtype: int8
  max_model_len: 0
  inputs: {max_token: x, seed: prompt}
  price: {input: -1, unit: 1G}
  max_modellen: 4
";
    assert_snapshot!(faults(text), @r#"
    cog.yaml:2:6: error: run: must be a string, not a list
    cog.yaml:4:8: error: build.gpu: must be true or false, not a string
    cog.yaml:5:8: error: build.run: must be a list, not a string
    cog.yaml:6:3: error: duplicate key, already given in line 5: run
    cog.yaml:7:20: error: concurrency.max: must be an integer, not a string
    cog.yaml:8:20: error: environment[1]: given twice: A
    cog.yaml:8:25: error: environment[2]: not a name for an environment variable: 1B
      hint: write `NAME=value`
    cog.yaml:8:31: error: environment[3]: no `=` in: C
      hint: write `NAME=value`
    cog.yaml:10:12: error: weights[0].name: not a name for weights: LLM
      hint: use lower case letters and digits, with single `.`, `_` or `-` between them
    cog.yaml:10:25: error: weights[0].target: target must be an absolute path: weights
    cog.yaml:10:48: error: weights[0].source.uri: unknown kind of source: s3://x
      hint: use hf://org/model[@ref], https://…, file://…, or a path
    cog.yaml:11:35: error: weights[1].source: at least one source is needed
    cog.yaml:12:5: error: weights[2]: two weights are called b
    cog.yaml:12:5: error: weights[2]: target /w/sub overlaps /w of b
    cog.yaml:12:45: error: weights[2].source.uri: not a hub repository: hf://x
      hint: write hf://org/model[@ref]
    cog.yaml:12:63: error: weights[2].source.exclude[0]: negation patterns (starting with '!') are not supported: !a
    cog.yaml:14:12: error: pinion.backend: unknown value: nativ
      hint: did you mean `native`? valid values: native, container, process
    cog.yaml:15:10: error: pinion.dtype: unknown value: int8
      hint: valid values: f32, f16, bf16, q8_0, q4_0, q4_k, q5_k, q6_k, fp8
    cog.yaml:16:18: error: pinion.max_model_len: must be from 1 to 4294967295
    cog.yaml:17:23: error: pinion.inputs.max_token: unknown value: max_token
      hint: did you mean `max_tokens`? valid values: prompt, system_prompt, prompt_template, max_tokens, min_tokens, temperature, top_p, top_k, presence_penalty, frequency_penalty, repetition_penalty, stop_sequences, seed
    cog.yaml:17:32: error: pinion.inputs.seed: prompt is an input of its own
    cog.yaml:18:18: error: pinion.price.input: not an amount: -1
      hint: write a decimal such as "0.10", not negative, at most nine digits after the point
    cog.yaml:18:28: error: pinion.price.unit: unknown value: 1G
      hint: valid values: 1, 1K, 1M
    cog.yaml:19:3: error: pinion.max_modellen: unknown key
      hint: did you mean `max_model_len`? known keys: backend, dtype, max_model_len, max_num_seqs, speculative_tokens, inputs, prompt_template, adapters, price
    "#);
}

#[test]
fn unknown_keys_are_kept_and_noted() {
    let text = "rn: x\nwieghts: []\ngpu: true\nname: demo\nbuild:\n  pythn_version: '3.12'\n  fast: true\n";
    let manifest = Manifest::parse(text).unwrap();
    assert_eq!(manifest.unknown["name"], "demo");
    assert_eq!(manifest.unknown["gpu"], true);
    assert_snapshot!(notes(text), @r#"
    cog.yaml:1:1: warning: rn: unknown key, ignored
      hint: did you mean `run`?
    cog.yaml:2:1: warning: wieghts: unknown key, ignored
      hint: did you mean `weights`?
    cog.yaml:3:1: warning: gpu: unknown key, ignored
      hint: `gpu` belongs under `build:`
    cog.yaml:4:1: note: name: unknown key, ignored
    cog.yaml:6:3: warning: build.pythn_version: unknown key, ignored
      hint: did you mean `python_version`?
    cog.yaml:7:3: warning: build.fast: unknown key, ignored
      hint: Cog no longer has this field
    "#);
}

#[test]
fn yaml_means_what_it_means_for_cog() {
    let read =
        |text: &str| Manifest::parse(text).unwrap_or_else(|faults| panic!("{text}: {faults:#?}"));
    assert_eq!(read("build: {python_version: 3.10}").build.python_version.as_deref(), Some("3.10"));
    for word in ["yes", "on", "y", "True", "TRUE"] {
        assert!(read(&format!("build: {{gpu: {word}}}")).build.gpu, "{word}");
    }
    assert!(!read("build: {gpu: off}").build.gpu);
    assert!(read("x: &x {gpu: yes}\nbuild: {<<: *x, cuda: 12.4}").build.gpu);
    assert!(!read("x: &x {gpu: yes}\nbuild: {<<: *x, gpu: no}").build.gpu);
    assert!(read("x: &x {gpu: yes}\ny: &y {gpu: no}\nbuild: {<<: [*x, *y]}").build.gpu);
    assert_eq!(read("---\nrun: b.py:R\n---\nrun: c.py:R\n").run.as_deref(), Some("b.py:R"));
    assert_eq!(read("\u{feff}run: b.py:R\n").run.as_deref(), Some("b.py:R"));
    assert_eq!(read("build:\nrun: b.py:R\n").build, read("").build);
    assert_eq!(read("run: !!str 12\n").run.as_deref(), Some("12"));
    assert_eq!(read("concurrency: 0x10").concurrency.unwrap().max, Some(16));
}

#[test]
fn what_cog_refuses_and_is_plain_is_read_with_a_warning() {
    let manifest = Manifest::parse("concurrency: 32\nenvironment: {A: 1, B: null}\n").unwrap();
    assert_eq!(manifest.concurrency.unwrap().max, Some(32));
    assert_eq!(
        manifest.environment,
        [("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())]
    );
    assert!(
        manifest.notes.iter().all(|note| note.severity == Severity::Warning && note.hint.is_some())
    );
    assert_eq!(manifest.notes.len(), 2);
}

#[test]
fn two_runners_that_differ_are_refused() {
    assert_snapshot!(faults("run: a.py:A\npredict: b.py:B\n"), @r#"
    cog.yaml:2:10: error: predict: run already names another runner: a.py:A
      hint: keep `run`, the newer name
    "#);
    assert!(Manifest::parse("run: a.py:A\npredict: ''\n").is_ok());
}

#[test]
fn a_file_that_is_no_mapping_is_refused() {
    assert_snapshot!(faults("- a\n- b\n"), @r#"
    cog.yaml:1:1: error: cog.yaml must be a mapping of fields, not a list
      hint: start with a line such as `run: run.py:Runner`
    "#);
    assert_snapshot!(faults("build: [\n"), @r#"cog.yaml:1:8: error: invalid YAML: unclosed bracket '['"#);
}

#[test]
fn what_a_fault_quotes_cannot_harm_a_terminal() {
    let text = format!("pinion: {{dtype: \"\\e[2J{}\"}}", "x".repeat(10_000));
    let faults = faults(&text);
    assert!(!faults.contains('\u{1b}') && faults.contains("\\u{1b}[2J"), "{faults}");
    assert!(faults.len() < 1000, "{}", faults.len());
}

#[test]
fn the_backend_follows_from_the_file_with_a_reason() {
    let hint = |text: &str| {
        let hint = Manifest::parse(text).unwrap().backend_hint();
        format!("{} {} {}", hint.backend, hint.certain, hint.reason)
    };
    assert_snapshot!(hint("run: run.py:Runner\npinion: {backend: native}"), @r#"native true cog.yaml says `pinion.backend: native`"#);
    assert_snapshot!(hint("predict: predict.py:P"), @r#"container true cog.yaml names a runner (`predict: predict.py:P`), and its Python may do more than its weights"#);
    assert_snapshot!(hint("run: run.py:Runner"), @r#"container true cog.yaml names a runner (`run: run.py:Runner`), and its Python may do more than its weights"#);
    assert_snapshot!(hint("run: ''"), @r#"native false cog.yaml names no runner (`run:` or `predict:`)"#);
}
