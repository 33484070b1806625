//! Kubernetes objects, typed or as YAML and JSON text, into the netpol model, with every defect reported.
