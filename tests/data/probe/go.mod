module capibara6.dev/tests/probe

go 1.26.0
