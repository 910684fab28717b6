module capibara6.dev/gotools/pause

go 1.26.0
