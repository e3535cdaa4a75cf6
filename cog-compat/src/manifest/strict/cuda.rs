//! The rules about CUDA, cuDNN and frameworks.
//!
//! Cog has a table of every CUDA base image and framework release. Here are the rules that refuse most files in
//! practice: a GPU package must pin its torch, and cuDNN must be of the generation that the CUDA images have.
use super::Strict;

impl Strict<'_> {
    pub(super) fn gpu(&mut self) {
        let build = &self.manifest.build;
        if !build.gpu {
            return;
        }
        if let (Some(cuda), Some(cudnn)) = (build.cuda.as_deref(), build.cudnn.as_deref())
            && !cudnn.is_empty()
            && let Some(compatible) = compatible_cudnn(cuda)
            && compatible != cudnn
        {
            let message = format!(
                "CUDA {cuda} is incompatible with CuDNN {cudnn}: compatible CuDNN versions are: {compatible}"
            );
            self.error("build.cudnn", message);
        }
        let requirements = build.python_requirements.as_deref().filter(|path| !path.is_empty());
        let (path, lines) = match requirements {
            Some(path) => {
                let text = (self.file)(path).unwrap_or_default();
                ("build.python_requirements", text.lines().map(str::to_owned).collect())
            }
            None => ("build.python_packages", build.python_packages.clone()),
        };
        if lines.iter().any(|line| is_unpinned(line, "torch")) {
            self.error(path, "torch version must be specified when using CUDA".to_owned());
        }
    }
}

/// What is wrong with a CUDA version, in Cog's words.
pub(super) fn version_fault(version: &str) -> Option<&'static str> {
    let Some((major, _)) = version.split_once('.') else {
        return Some("must include both major and minor versions (e.g., '11.8')");
    };
    match major.parse::<u32>() {
        Err(_) => Some("invalid major version number"),
        Ok(major) if major < 11 => Some("minimum supported CUDA version is 11"),
        Ok(_) => None,
    }
}

/// The cuDNN generation of NVIDIA's images of a CUDA version, where there is only one.
fn compatible_cudnn(cuda: &str) -> Option<&'static str> {
    let mut parts = cuda.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    match (major, minor) {
        (11, _) | (12, 0..=2) => Some("8"),
        (12, 4..) => Some("9"),
        _ => None,
    }
}

/// Whether a line of requirements asks for any version of a package.
fn is_unpinned(line: &str, package: &str) -> bool {
    let line = line.split(['#', ';']).next().unwrap_or_default().trim();
    let name = line.split('[').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case(package)
}
