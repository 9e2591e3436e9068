"""The rules: what each looks at, its parameters, and when it fires."""
