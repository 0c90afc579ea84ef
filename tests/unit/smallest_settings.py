"""The shortest lifeboat.yaml that holds; nothing answers where its bucket would be."""

SMALLEST = """\
platform: cad-test
environment: staging
stack: {kind: process, supervisor_config: x.conf, critical_services: [postgres]}
database: {service: postgres, name: cad, data_directory: data/postgres}
files: {directories: {drawings: data/files}}
models: {directories: {models: data/models}}
config: {paths: [lifeboat.yaml]}
vault: {local: backups, s3: {endpoint: "http://127.0.0.1:9", bucket: vault}}
"""
