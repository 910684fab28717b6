{{- define "capibara.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if hasPrefix .Release.Name .Chart.Name -}}
{{- .Chart.Name -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. Argument: a dict of root (the top context) and component. */}}
{{- define "capibara.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: capibara6
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "capibara.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The part of the labels that never changes, for selectors. */}}
{{- define "capibara.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of pods: nothing that an upgrade of the chart alone would change. */}}
{{- define "capibara.podLabels" -}}
app.kubernetes.io/part-of: capibara6
{{ include "capibara.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image reference; a digest wins over a tag. Argument: a dict of root and image. */}}
{{- define "capibara.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "capibara.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "capibara.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name must name an existing ServiceAccount when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The CEL list of user names that act as the operator. */}}
{{- define "capibara.operatorUsers" -}}
{{- $users := list (printf "system:serviceaccount:%s:%s" .Release.Namespace (include "capibara.serviceAccountName" .)) -}}
{{- range .Values.admission.trustedUsers }}{{ $users = append $users . }}{{ end -}}
{{- toJson $users -}}
{{- end -}}

{{- define "capibara.sandboxdSecretName" -}}
{{- .Values.sandboxd.auth.existingSecret | default "capibara-sandboxd" -}}
{{- end -}}

{{- define "capibara.sandboxdURL" -}}
{{- printf "http://capibara-sandboxd.%s.svc:%d" .Values.sandboxd.namespace.name (int .Values.sandboxd.service.port) -}}
{{- end -}}

{{/*
Custom resources need their kinds to exist before Helm looks at them. Where this chart brings the
kinds, they come after it as hooks; where the kinds are there already, they are plain resources of
the release. Server-side apply (Helm 4) updates a hook in place, Helm 3 has to recreate it.
*/}}
{{- define "capibara.catalogueAnnotations" -}}
{{- $asHooks := .Values.crds.enabled -}}
{{- if kindIs "bool" .Values.catalogue.hooks }}{{ $asHooks = .Values.catalogue.hooks }}{{ end -}}
{{- if $asHooks -}}
helm.sh/hook: post-install,post-upgrade,post-rollback
{{- if semverCompare ">=4.0.0-0" .Capabilities.HelmVersion.Version }}
helm.sh/hook-delete-policy: hook-failed
{{- else }}
helm.sh/hook-delete-policy: before-hook-creation
{{- end }}
{{- end -}}
{{- end -}}
